"""CSV files of results, to which each measurement adds a line, so that a run continues where another has ended."""

import csv
from pathlib import Path

import pandas as pd


def measured(path: Path, key: list[str]) -> set[tuple]:
    """Return the values of some columns of the lines that a CSV file has."""
    return set(pd.read_csv(path)[key].itertuples(index=False, name=None)) if path.exists() else set()


def append_line(path: Path, columns: list[str], line: dict) -> None:
    """Append a line to a CSV file, after the names of its columns if it is new; missing values are left empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(line)
