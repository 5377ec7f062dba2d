"""Zero-shot classification: macro-F1 without training examples.

    python benchmarks/zeroshot.py                                  # every single-label set of the shared folder
    python benchmarks/zeroshot.py --data FOLDER --sets ag_news sst2 --models plain ours path/to/checkpoint
    python benchmarks/zeroshot.py --table                          # print the table of the results
    python benchmarks/zeroshot.py --written                        # on the held-out written tasks

`plain` is the similarity of the embeddings of text and class name by all-MiniLM-L6-v2, `ours` the default classifier,
and other names are folders of GLiClass checkpoints. Each model and data set is a line of a CSV file, and is not run
again. The test set is at most 1,000 rows of NAME.test.csv.gz; underscores in class names are read as spaces. The held-
out written tasks have the same author as the training tasks, and favour models that were trained on these (model card).
"""

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import accuracy_score, f1_score

import common
from quality_sets import find_sets, load_split
from zeroshot_mixture import UNTRAINED, written_tasks

CSV = Path(__file__).parent / "results/zeroshot.csv"
COLUMNS = ["set", "model", "classes", "n_test", "macro_f1", "accuracy", "load_seconds", "predict_seconds"]
SEEN = {"clinc150", "movie_reviews"}  # data sets whose training rows are in the mixture of zeroshot_train.py


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    if options.written:
        print(written_table(options.models))
        return
    if not options.table:
        folder = options.data.resolve()
        for name in options.sets or find_sets(folder):
            split = load_split(folder, name, 1, 0)
            if split.task == "single-label":
                measure(split, options)
    print(table(pd.read_csv(options.csv)))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=common.DATA, help="folder of the data sets")
    parser.add_argument("--sets", nargs="+", help="default: all single-label sets of the folder")
    parser.add_argument("--models", nargs="+", default=["plain", "ours"], help="plain, ours, or checkpoint folders")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--csv", type=Path, default=CSV, help="the results")
    parser.add_argument("--table", action="store_true", help="print the table of the results, run nothing")
    parser.add_argument("--written", action="store_true", help="test on the held-out written tasks, without a CSV file")
    return parser.parse_args()


def measure(split, options) -> None:
    done = set()
    if options.csv.exists():
        with options.csv.open(newline="", encoding="utf-8") as file:
            done = {(line["set"], line["model"]) for line in csv.DictReader(file)}
    for model in options.models:
        if (split.name, model) not in done:
            line = run(split, model)
            new = not options.csv.exists()
            options.csv.parent.mkdir(parents=True, exist_ok=True)
            with options.csv.open("a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                if new:
                    writer.writeheader()
                writer.writerow(line)


def classifier(model: str):
    from sklearn_gliclass import GLiClassClassifier
    from sklearn_gliclass.model.lookup import DEFAULT_ENCODER

    return GLiClassClassifier(
        **{"plain": {"encoder_model": DEFAULT_ENCODER}, "ours": {}}.get(model, {"pretrained": model})
    )


def run(split, model: str) -> dict:
    classes = np.unique(split.y_test)
    begin = time.perf_counter()
    clf = classifier(model).fit(None, classes)
    loaded = time.perf_counter()
    predicted = clf.predict(split.X_test)
    return {
        "set": split.name, "model": model, "classes": len(classes), "n_test": len(split.X_test),
        "macro_f1": f"{f1_score(split.y_test, predicted, average='macro'):.4f}",
        "accuracy": f"{accuracy_score(split.y_test, predicted):.4f}",
        "load_seconds": f"{loaded - begin:.2f}", "predict_seconds": f"{time.perf_counter() - loaded:.2f}",
    }  # fmt: skip


def written_table(models: list[str]) -> str:
    """Build the table of mean macro-F1 over the tasks of each file, and the number of tasks on which a model is "
    "best."""
    rows = []
    for path in sorted(UNTRAINED.glob("*.jsonl")):
        for task in written_tasks([path]):
            y = np.array(task.labels)[task.targets.argmax(axis=1)]
            predicted = [classifier(model).fit(None, task.labels).predict(task.texts) for model in models]
            rows.append([path.stem, *(f1_score(y, own, average="macro") for own in predicted)])
    scores = pd.DataFrame(rows, columns=["tasks", *models]).set_index("tasks")
    means = scores.groupby("tasks", sort=True).mean()
    means.loc["**mean of all**"] = scores.mean()
    counts = scores.groupby("tasks").size()
    lines = [
        [name, str(counts.get(name, len(scores))), *(f"{value:.3f}" for value in row)]
        for name, row in zip(means.index, means.to_numpy(), strict=True)
    ]
    best = scores.eq(scores.max(axis=1), axis=0).sum()
    lines.append(["tasks on which it is best, or tied", "", *map(str, best)])
    return markdown(["tasks", "number", *models], lines)


def table(results: pd.DataFrame) -> str:
    """Build the table of macro-F1, with data sets of the training below the mean."""
    wide = results.pivot_table("macro_f1", "set", "model", sort=False)
    wide = wide[sorted(wide, key=lambda name: (name != "plain", name != "ours", name))]
    unseen, seen = wide[~wide.index.isin(SEEN)], wide[wide.index.isin(SEEN)]
    mean = unseen.mean().to_frame("**mean**").T
    rows = pd.concat([unseen, mean, seen.rename(lambda name: f"{name} (seen in training)")])
    lines = [[name, *(f"{value:.3f}" for value in row)] for name, row in zip(rows.index, rows.to_numpy(), strict=True)]
    return markdown(["set", *wide], lines)


def markdown(header: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *lines])


if __name__ == "__main__":
    main()
