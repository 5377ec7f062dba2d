"""The directive ``benchmark-table``: tables of ``benchmarks/results/*.csv``, made when the site is built."""

from pathlib import Path

import pandas as pd
from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
METHODS = {
    "ours": "GLiClass",
    "ours_fast": 'GLiClass, `preset="fast"`',
    "zero_shot": "zero-shot",
    "own_logreg": "our embeddings",
    "tfidf": "TF-IDF",
    "embeddings": "Embeddings",
    "setfit": "SetFit",
    "fastfit": "FastFit",
}
INGREDIENTS = {
    "zero_shot": "zero-shot: nothing is trained",
    "ours_fast": 'names and label probe (`preset="fast"`)',
    "no_probe": "fine-tuning alone, without a label probe",
    "no_names": "all but the names in the fine-tuning",
    "no_average": "all but the average of weights",
    "no_calibration": "all but the calibration",
    "ours": "all",
}
LOSSES = {"log_loss", "ece"}  # the best is the smallest
OWN = ["ours", "ours_fast"]
SMALLEST_DIFFERENCE = 0.0005  # what the three digits of the table can show


def quality_table(task: str, rows: str, score: str) -> str:
    """Scores of each set and method as a Markdown table: means over the seeds with standard errors, the best in bold.

    Baselines are compared on the seeds on which this package was measured. The last line is the mean over the sets, of
    the methods that were measured on all of them.
    """
    results = _results(task, rows)
    draws = pd.MultiIndex.from_frame(results[["set", "seed"]])
    results = results[draws.isin(draws[results["method"] == "ours"])]
    means = results.pivot_table(score, "set", "method")
    means = means[[method for method in METHODS if method in means]]
    seeds = results.pivot_table(score, "set", "method", aggfunc="count").fillna(0).astype(int)
    errors = results.groupby(["set", "method"])[score].sem().unstack()
    lines = [["set", *(METHODS[method] for method in means), "GLiClass - best baseline", ""]]
    for name, row in means.iterrows():
        lines.append([name, *cells(row, score, seeds.loc[name], errors.loc[name]), *difference(row, score)])
    if len(means) > 1:
        row = means.mean(skipna=False)
        lines.append([f"**mean of {len(means)}**", *cells(row, score), *difference(row, score)])
    return markdown(lines)


def ingredients_table(rows: str) -> str:
    """Mean scores of the default fit without its ingredients, on the sets and seeds on which all were measured."""
    results = _results("single-label", rows)
    results = results[results["method"].isin(INGREDIENTS)]
    measured = results.groupby(["set", "seed"])["method"].transform("nunique") == results["method"].nunique()
    means = results[measured].groupby("method")[["accuracy", "log_loss", "ece", "fit_cpu_seconds"]].mean()
    lines = [["fit", "accuracy", "log loss", "ECE", "CPU seconds"]]
    for method, title in INGREDIENTS.items():
        if method in means.index:
            *scores, seconds = means.loc[method]
            lines.append([title, *(f"{score:.3f}" for score in scores), f"{seconds:.1f}"])
    return markdown(lines)


def _results(task: str, rows: str) -> pd.DataFrame:
    results = pd.read_csv(RESULTS / "quality.csv", dtype={"rows": str})
    return results[(results["task"] == task) & (results["rows"] == rows)]


def cells(row: pd.Series, score: str, seeds: pd.Series | None = None, errors: pd.Series | None = None) -> list[str]:
    """One cell for each method; where a method was measured on fewer seeds than this package, their number."""
    found, best = [], row.min() if score in LOSSES else row.max()
    for method, value in row.items():
        text = "" if pd.isna(value) else f"**{value:.3f}**" if value == best else f"{value:.3f}"
        if errors is not None and errors[method] > 0:
            text += f" ± {errors[method]:.3f}"
        fewer = seeds is not None and 0 < seeds[method] < seeds["ours"]
        found.append(f"{text} ({seeds[method]} of {seeds['ours']} seeds)" if fewer else text)
    return found


def difference(row: pd.Series, score: str) -> list[str]:
    """The distance to the best baseline, and who leads."""
    baselines = row.drop(OWN, errors="ignore")
    value = row["ours"] - (baselines.min() if score in LOSSES else baselines.max())
    gain = -value if score in LOSSES else value
    leader = "ahead" if gain >= SMALLEST_DIFFERENCE else "**behind**" if gain <= -SMALLEST_DIFFERENCE else "equal"
    return [f"{value:+.3f}", leader]


def zero_shot_table() -> str:
    """Macro-F1 and accuracy without examples: the plain encoder and the weights of this package."""
    results = pd.read_csv(RESULTS / "zeroshot.csv")
    table = results.pivot_table(["macro_f1", "accuracy"], "set", "model")
    classes = results.groupby("set")["classes"].first()
    lines = [["set", "classes", "macro-F1, plain encoder", "macro-F1, GLiClass", "accuracy, plain encoder",
              "accuracy, GLiClass", ""]]  # fmt: skip
    for name, row in table.iterrows():
        numbers = []
        for score in ("macro_f1", "accuracy"):
            best = row[score].max()
            numbers += [f"**{v:.3f}**" if v == best else f"{v:.3f}" for v in (row[score, "plain"], row[score, "ours"])]
        value = row["macro_f1", "ours"] - row["macro_f1", "plain"]
        lines.append([name, str(classes[name]), *numbers, "**behind**" if value < 0 else "ahead"])
    return markdown(lines)


def markdown(lines: list[list[str]]) -> str:
    """A Markdown table of cells.

    Examples
    --------
    >>> print(markdown([["a", "b"], ["1", "2"]]))
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    lines = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


class BenchmarkTable(SphinxDirective):
    """``zero-shot``, ``ingredients ROWS``, or ``TASK ROWS SCORE`` such as ``single-label 8 accuracy``."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self):
        arguments = self.arguments[0].split()
        kind, *others = arguments
        special = {"zero-shot": zero_shot_table, "ingredients": ingredients_table}
        text = special[kind](*others) if kind in special else quality_table(*arguments)
        for name in ("quality.csv", "zeroshot.csv"):
            self.env.note_dependency(str(RESULTS / name))
        return self.parse_text_to_nodes(text)


def setup(app):
    app.add_directive("benchmark-table", BenchmarkTable)
    return {"parallel_read_safe": True}
