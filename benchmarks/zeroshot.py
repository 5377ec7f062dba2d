"""Zero-shot classification: scores without training examples, and what weights gain and lose on each data set.

    python benchmarks/zeroshot.py                                  # the single-label sets of the shared folder
    python benchmarks/zeroshot.py --data FOLDER --sets ag_news sst2 --models plain ours path/to/checkpoint
    python benchmarks/zeroshot.py --excluded --csv A/excluded.csv  # sets that the training excludes for their licences
    python benchmarks/zeroshot.py --table                          # print the tables of the results
    python benchmarks/zeroshot.py --written                        # on the held-out written tasks

`plain` is the similarity of the embeddings of text and class name by all-MiniLM-L6-v2, `ours` the default classifier,
and other names are folders of GLiClass checkpoints. Each model and data set is a line of a CSV file, and is not run
again. The test set is at most `--rows` rows of NAME.test.csv.gz; underscores in class names are read as spaces.

`none_f1` is the F1 score of the answer "none of these" where every second class is left out, on sets of four classes or
more, with the threshold that zero-shot classification has without training texts. The held-out written tasks have the
same author as the training tasks, and favour models that were trained on these (model card).
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import accuracy_score, f1_score

import common
from quality_scores import calibration_error, log_loss
from quality_sets import MAX_TEST, find_sets, load_split
from result_files import append_line, measured
from zeroshot_mixture import LEFT_OUT, UNTRAINED, read, written_tasks

CSV = Path(__file__).parent / "results/zeroshot.csv"
SCORES = ["macro_f1", "accuracy", "log_loss", "ece", "none_f1"]
COLUMNS = ["set", "model", "classes", "n_test", *SCORES, "load_seconds", "predict_seconds"]
SEEN = {"clinc150", "movie_reviews"}  # data sets whose training rows are in the mixture of zeroshot_train.py
HELD_OUT = [
    "banking77",
    "customer_reviews",
    "sms_spam",
    "snips",
    "subjectivity",
    "trec6",
    "tweet_emotion",
    "tweet_sentiment",
]  # single-label sets that it never trains on
UNKNOWN = "none of these"
MIN_CLASSES = 4  # from which on classes are left out
HARM = 0.02  # loss of macro-F1 or accuracy that is reported


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    if options.written:
        print(written_table(options.models))
        return
    if not options.table:
        measure_all(options)
    print(report(pd.read_csv(options.csv)))


def report(results: pd.DataFrame) -> str:
    """Build the tables of the mean scores, and of gains and losses against the plain encoder and the own weights."""
    return "\n\n".join([table(results), *(differences(results, base) for base in ("plain", "ours"))])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=common.DATA, help="folder of the data sets")
    parser.add_argument("--sets", nargs="+", help="default: all single-label sets of the folder")
    parser.add_argument(
        "--excluded", action="store_true", help="sets of the mixture's folder that are excluded from the training"
    )
    parser.add_argument("--models", nargs="+", default=["plain", "ours"], help="plain, ours, or checkpoint folders")
    parser.add_argument("--rows", type=int, default=MAX_TEST, help="maximum number of test rows")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--csv", type=Path, default=CSV, help="the results")
    parser.add_argument("--table", action="store_true", help="print the tables of the results, run nothing")
    parser.add_argument("--written", action="store_true", help="test on the held-out written tasks, without a CSV file")
    return parser.parse_args()


def measure_all(options) -> None:
    """Measure the models on each data set, and append new results to the CSV file."""
    folder = options.data.resolve()
    if options.excluded:
        for name in options.sets or LEFT_OUT:
            frame = read(folder.parent / "zeroshot" / f"{name}.csv.gz").head(options.rows)
            measure(name, frame["text"], frame["label"], options)
        return
    for name in options.sets or find_sets(folder):
        split = load_split(folder, name, 1, 0)
        if split.task == "single-label":
            measure(name, split.X_test.head(options.rows), split.y_test.head(options.rows), options)


def measure(name: str, texts, y, options) -> None:
    done = measured(options.csv, ["set", "model"])
    for model in options.models:
        if (name, model) not in done:
            line = {"set": name, "model": model, **run(texts, y.to_numpy(), model)}
            append_line(options.csv, COLUMNS, line)


def classifier(model: str):
    from sklearn_gliclass import GLiClassClassifier
    from sklearn_gliclass.model.lookup import DEFAULT_ENCODER

    return GLiClassClassifier(
        **{"plain": {"encoder_model": DEFAULT_ENCODER}, "ours": {}}.get(model, {"pretrained": model})
    )


def run(texts, y: np.ndarray, model: str) -> dict:
    """Measure a model on a data set."""
    classes = np.unique(y)
    begin = time.perf_counter()
    clf = classifier(model).fit(None, classes)
    loaded = time.perf_counter()
    proba = clf.predict_proba(texts)
    seconds = time.perf_counter() - loaded
    predicted = classes[proba.argmax(axis=1)]
    scores = {
        "macro_f1": f1_score(y, predicted, average="macro"),
        "accuracy": accuracy_score(y, predicted),
        "log_loss": log_loss(y, proba, list(classes)),
        "ece": calibration_error(proba.max(axis=1), y == predicted),
    }
    if len(classes) >= MIN_CLASSES:
        open_set = classifier(model).set_params(unknown_label=UNKNOWN).fit(None, classes[::2])
        scores["none_f1"] = f1_score(~np.isin(y, classes[::2]), open_set.predict(texts) == UNKNOWN)
    return {
        "classes": len(classes), "n_test": len(texts), **{name: f"{value:.4f}" for name, value in scores.items()},
        "load_seconds": f"{loaded - begin:.2f}", "predict_seconds": f"{seconds:.2f}",
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
    """Build the table of the mean scores of each model over the data sets that were not in the training."""
    unseen = results[~results["set"].isin(SEEN)]
    means = unseen.groupby("model", sort=False)[SCORES].mean()
    lines = [
        [name, *(f"{value:.3f}" for value in row)] for name, row in zip(means.index, means.to_numpy(), strict=True)
    ]
    return markdown(["mean of the sets not trained on", *SCORES], lines)


def differences(results: pd.DataFrame, base: str) -> str:
    """Build the table of macro-F1 and accuracy of a model, the differences of others to it, and the sets that lose."""
    wide = results.pivot_table(["macro_f1", "accuracy"], "set", "model", sort=False)
    models = [model for model in results["model"].unique() if model not in (base, "plain")]
    if base not in wide["macro_f1"] or not models:
        return f"No other model to compare with {base}."
    seen = wide.index.isin(SEEN)
    parts, losses = [], []
    for score in ("macro_f1", "accuracy"):
        change = wide[score][models].sub(wide[score, base], axis=0)
        low = change.stack()
        losses += [f"* {name}: {model} {value:+.3f} {score}" for (name, model), value in low[low < -HARM].items()]
        part = pd.concat([wide[score, base].rename(f"{base}, {score}"), change], axis=1)
        mean = part[~seen].mean().to_frame("**mean**").T
        part = pd.concat([part[~seen], mean, part[seen].rename(lambda name: f"{name} (seen in training)")])
        parts.append(part.apply(lambda column: column.map(("{:+.3f}" if column.name in models else "{:.3f}").format)))
    header = ["set", *parts[0], *parts[1]]
    lines = [
        [name, *first, *second]
        for name, first, second in zip(parts[0].index, *(p.to_numpy() for p in parts), strict=True)
    ]
    lost = "\n".join(losses) or "none"
    return f"{markdown(header, lines)}\n\nLosses of more than {HARM} against {base}:\n\n{lost}"


def markdown(header: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *lines])


if __name__ == "__main__":
    main()
