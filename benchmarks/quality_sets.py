"""The data sets of quality.py: any folder with files NAME.train.csv.gz and NAME.test.csv.gz.

The columns determine the task. Besides ``text``, they are ``label`` (single-label); ``labels``, joined by ``|``
(multi-label); numbers (regression); ``label`` and further columns (a table).
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.preprocessing import MultiLabelBinarizer

MAX_TRAIN, MAX_TEST = 8000, 1000
REGRESSION_ROWS = {8: 100, 32: 500}  # examples per class -> rows of a regression
TEST_SEED = 0  # the test rows are the same for all seeds and methods


@dataclass(frozen=True)
class Split:
    """Training and test rows."""

    name: str
    task: str  # "single-label", "multi-label", "regression" or "table"
    X_train: pd.Series | pd.DataFrame
    y_train: pd.Series | pd.DataFrame
    X_test: pd.Series | pd.DataFrame
    y_test: pd.Series | pd.DataFrame

    @property
    def classes(self) -> list[str]:
        """The sorted classes of the training rows, or the labels of a multi-label set: the columns of probabilities."""
        return list(self.y_train) if self.task == "multi-label" else sorted(self.y_train.unique())


def find_sets(folder: Path) -> list[str]:
    """Find the data sets in a folder, without tables, whose baselines use joined text."""
    names = sorted(path.name.removesuffix(".train.csv.gz") for path in folder.glob("*.train.csv.gz"))
    names = [name for name in names if (folder / f"{name}.test.csv.gz").exists()]
    return [name for name in names if task_of(_columns(folder, name)) != "table"]


def load_split(folder: Path, name: str, rows: int | str, seed: int) -> Split:
    """Sample `rows` examples per class of the training file, or "all" (at most 8,000), and 1,000 test rows."""
    train, test, task = _read(folder, name)
    X, y = _inputs(train, task), _targets(train, test, task)
    chosen = _choose(y["train"], task, rows, np.random.default_rng(seed))
    X_test = _inputs(test, task)
    test_rows = np.random.default_rng(TEST_SEED).permutation(len(test))[:MAX_TEST]
    return Split(name, task, X.iloc[chosen], y["train"].iloc[chosen], X_test.iloc[test_rows], y["test"].iloc[test_rows])


def task_of(columns: list[str]) -> str:
    others = set(columns) - {"text", "label", "labels"}
    if "labels" in columns:
        return "multi-label"
    if "label" in columns:
        return "table" if others else "single-label"
    return "regression"


def _columns(folder: Path, name: str) -> list[str]:
    return pd.read_csv(folder / f"{name}.train.csv.gz", nrows=0).columns.tolist()


@functools.lru_cache(maxsize=32)
def _read(folder: Path, name: str) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    columns = _columns(folder, name)
    words = [column for column in ("text", "label", "labels") if column in columns]
    # "NA" and "null" are words; only empty cells of tables are missing.
    missing = {column: [""] for column in columns if column not in words}
    kinds = dict.fromkeys(words, str)
    paths = [folder / f"{name}.{part}.csv.gz" for part in ("train", "test")]
    train, test = (pd.read_csv(path, keep_default_na=False, na_values=missing, dtype=kinds) for path in paths)
    return train, test, task_of(columns)


def _inputs(frame: pd.DataFrame, task: str) -> pd.Series | pd.DataFrame:
    return frame.drop(columns="label") if task == "table" else frame["text"]


def _targets(train: pd.DataFrame, test: pd.DataFrame, task: str) -> dict[str, pd.Series | pd.DataFrame]:
    """Return labels as words (without the underscores of some data sets), an indicator matrix, or numbers."""
    parts = {"train": train, "test": test}
    if task == "multi-label":
        labels = {part: [_label_list(cell) for cell in frame["labels"]] for part, frame in parts.items()}
        known = sorted({label for row in labels["train"] for label in row})
        binarizer = MultiLabelBinarizer(classes=known)
        rows = {part: [[label for label in row if label in known] for row in lists] for part, lists in labels.items()}
        return {part: pd.DataFrame(binarizer.fit_transform(lists), columns=known) for part, lists in rows.items()}
    if task == "regression":
        y = {part: frame.drop(columns="text").astype(float) for part, frame in parts.items()}
        return {part: frame.iloc[:, 0] if frame.shape[1] == 1 else frame for part, frame in y.items()}
    return {part: frame["label"].str.replace("_", " ") for part, frame in parts.items()}


def _label_list(cell: str) -> list[str]:
    return cell.replace("_", " ").split("|") if cell else []


def _choose(y: pd.Series | pd.DataFrame, task: str, rows: int | str, rng: np.random.Generator) -> np.ndarray:
    order = rng.permutation(len(y))
    if rows == "all":
        return order[:MAX_TRAIN]
    if task == "regression":
        return order[: REGRESSION_ROWS.get(rows, 15 * rows)]
    if task == "multi-label":
        return _rows_per_label(y.to_numpy(), order, rows)
    shuffled = y.iloc[order]
    return order[shuffled.groupby(shuffled).cumcount().to_numpy() < rows]


def _rows_per_label(indicator: np.ndarray, order: np.ndarray, rows: int) -> np.ndarray:
    """Select a row if one of its labels has fewer than `rows` examples; having no label counts as a label."""
    none = 1 - indicator.max(axis=1, keepdims=True)
    indicator = np.hstack([indicator, none]).astype(bool)
    seen = np.zeros(indicator.shape[1], dtype=int)
    chosen = []
    for row in order:
        if (seen[indicator[row]] < rows).any():
            seen += indicator[row]
            chosen.append(row)
    return np.array(chosen)
