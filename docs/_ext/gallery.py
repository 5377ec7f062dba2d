"""The example gallery: copies of the notebooks, a thumbnail of each, and a page of cards.

Everything is written to ``docs/examples`` before Sphinx looks for pages, and only where it changed.
"""

import base64
import io
import json
import re
import shutil
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from PIL import Image

DOCS = Path(__file__).resolve().parents[1]
NOTEBOOKS = DOCS.parent / "notebooks"
EXAMPLES = DOCS / "examples"
THUMBNAIL = (480, 320)  # pixels
MAX_TABLE_LINES, MAX_TABLE_CHARACTERS = 9, 46

PAGE = """# Examples

Notebooks with their outputs. Each runs on two CPU cores in a few minutes at most; `make notebooks` runs them all.

::::{{grid}} 1 2 2 3
:gutter: 3

{cards}
::::

```{{toctree}}
:hidden:

{names}
data/README
```
"""

CARD = """:::{{grid-item-card}} {title}
:link: {name}
:link-type: doc
:img-top: thumbnails/{name}.png
:class-img-top: gallery-thumbnail

{summary}
:::
"""


def heading_and_summary(notebook: dict) -> tuple[str, str]:
    """The first heading of a notebook, and the first two sentences below it."""
    text = "".join(notebook["cells"][0]["source"])
    title, _, rest = text.partition("\n")
    paragraph = " ".join(rest.strip().split("\n\n")[0].split())
    sentences = re.split(r"(?<=[.?!]) ", paragraph)
    return title.removeprefix("#").strip(), " ".join(sentences[:2])


def outputs(notebook: dict, kind: str) -> list[str]:
    """All outputs of a MIME type, in their order."""
    found = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            value = output.get("data", {}).get(kind)
            if value is not None:
                found.append("".join(value))
    return found


def thumbnail(notebook: dict) -> Image.Image:
    """The last picture of a notebook, scaled onto a white card; of one without pictures, its last table as text."""
    pictures = outputs(notebook, "image/png")
    if pictures:
        picture = Image.open(io.BytesIO(base64.b64decode(pictures[-1]))).convert("RGBA")
    else:
        picture = table_picture(outputs(notebook, "text/plain")[-1])
    picture.thumbnail(THUMBNAIL, Image.Resampling.LANCZOS)
    card = Image.new("RGB", THUMBNAIL, "white")
    place = tuple((whole - part) // 2 for whole, part in zip(THUMBNAIL, picture.size, strict=True))
    card.paste(picture, place, picture)
    return card.quantize(64)


def table_picture(text: str) -> Image.Image:
    """Draw the first lines of a text."""
    lines = [line[:MAX_TABLE_CHARACTERS] for line in text.splitlines()[:MAX_TABLE_LINES]]
    figure = plt.figure(figsize=(4.8, 3.2), dpi=100)
    figure.text(0.06, 0.5, "\n".join(lines), family="monospace", fontsize=11, va="center", linespacing=1.6)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    plt.close(figure)
    return Image.open(file).convert("RGBA")


def write_if_changed(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != content:
        path.write_bytes(content)


def write_examples(folder: Path = EXAMPLES) -> list[str]:
    """Write the folder of the gallery, and return the names of its notebooks."""
    cards, names = [], []
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        content = path.read_bytes()
        notebook = json.loads(content)
        title, summary = heading_and_summary(notebook)
        picture = folder / "thumbnails" / f"{path.stem}.png"
        source = folder / path.name
        if not (source.exists() and source.read_bytes() == content and picture.exists()):
            file = io.BytesIO()
            thumbnail(notebook).save(file, format="png", optimize=True)
            write_if_changed(picture, file.getvalue())
        write_if_changed(source, content)
        cards.append(CARD.format(title=title, name=path.stem, summary=summary))
        names.append(path.stem)
    write_if_changed(folder / "data" / "README.md", (NOTEBOOKS / "data" / "README.md").read_bytes())
    page = PAGE.format(cards="\n".join(cards), names="\n".join(names))
    write_if_changed(folder / "index.md", page.encode())
    for old in folder.glob("*.ipynb"):  # of notebooks that were renamed
        if old.stem not in names:
            old.unlink()
    return names


def setup(app):
    shutil.rmtree(EXAMPLES / ".ipynb_checkpoints", ignore_errors=True)
    write_examples()
    return {"parallel_read_safe": True}
