"""Markdown tables of the results of quality.py."""

import numpy as np
import pandas as pd

# The first score of a task has the times of the fits beside it.
SCORES = {
    "single-label": {"accuracy": "accuracy", "log_loss": "log loss", "ece": "ECE (15 bins)"},
    "table": {"accuracy": "accuracy", "macro_f1": "macro-F1", "log_loss": "log loss", "ece": "ECE (15 bins)"},
    "multi-label": {"micro_f1": "micro-F1", "macro_f1": "macro-F1", "log_loss": "log loss per label"},
    "regression": {"r2": "R²", "spearman": "Spearman's correlation"},
}
LOSSES = ["log_loss", "ece"]  # the best is the smallest
NAMES = {
    "ours": "GLiClass",
    "ours_fast": 'GLiClass, preset="fast"',
    "plain": "GLiClass from the plain encoder",
    "no_probe": "without label probe",
    "no_names": "without names in the fine-tuning",
    "no_average": "without average",
    "no_calibration": "without calibration",
    "zero_shot": "zero-shot",
    "own_logreg": "our embeddings",
    "embeddings": "embeddings",
    "tfidf": "TF-IDF",
    "setfit": "SetFit",
    "fastfit": "FastFit",
}
# Titles of the differences -> baselines.
BASELINES = {
    "best of zero-shot and our embeddings": ["zero_shot", "own_logreg"],
    "best quick baseline": ["zero_shot", "own_logreg", "embeddings", "tfidf"],
    "best of SetFit and FastFit": ["setfit", "fastfit"],
}
REFERENCE = "own_logreg"  # of the ratios of log losses
ROWS_REGRESSION = {"8": "100 rows", "32": "500 rows"}


def markdown(results: pd.DataFrame) -> str:
    """Build a table for each task, score and number of rows: means over seeds with their standard errors."""
    parts = []
    for task, scores in SCORES.items():
        for score, title in scores.items():
            for rows in sorted(results["rows"].unique(), key=lambda rows: (rows == "all", rows.zfill(6))):
                chosen = results[(results["task"] == task) & (results["rows"] == rows)]
                if len(chosen):
                    parts.append(f"**{title}, {task}, {_rows_title(task, rows)}**\n\n{_table(chosen, score)}")
    return "\n\n".join(parts)


def _rows_title(task: str, rows: str) -> str:
    if rows == "all":
        return "all rows"
    if task == "regression":
        return ROWS_REGRESSION.get(rows, f"{15 * int(rows)} rows")
    return f"{rows} examples per {'label' if task == 'multi-label' else 'class'}"


def _table(results: pd.DataFrame, score: str) -> str:
    results = _restrict_to_common_seeds(results)
    methods = [method for method in NAMES if (results["method"] == method).any()]
    cells = results.pivot_table(score, "set", "method", aggfunc=["mean", "sem", "count"])
    cells = cells.reindex(columns=pd.MultiIndex.from_product([["mean", "sem", "count"], methods]))
    means, errors, seeds = cells["mean"], cells["sem"], cells["count"].fillna(0).astype(int)
    comparisons = _comparisons(results, score, methods)
    lines = [["set", *(NAMES[method] for method in methods), *comparisons]]
    lines.append(["---"] * len(lines[0]))
    for name in means.index:
        scores = _scores(means.loc[name], errors.loc[name], score in LOSSES, seeds.loc[name], seeds.max(axis=None))
        lines.append([name, *scores, *(compare([name]) for compare in comparisons.values())])
    complete = means.dropna()
    if len(complete) > 1:
        names, mean = complete.index.tolist(), complete.mean()
        scores = _scores(mean, _error_of_mean(errors.loc[names]), score in LOSSES)
        lines.append([f"mean of {len(names)}", *scores, *(compare(names) for compare in comparisons.values())])
        if score == "log_loss" and REFERENCE in methods:
            ratios = [f"{value:.2f}" for value in mean / mean[REFERENCE]]
            lines.append([f"mean / {NAMES[REFERENCE]}", *ratios, *([""] * len(comparisons))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _restrict_to_common_seeds(results: pd.DataFrame) -> pd.DataFrame:
    """Restrict the baselines to the seeds on which this package was measured."""
    splits = pd.MultiIndex.from_frame(results[["set", "seed"]])
    own = results["method"] == "ours"
    return results[splits.isin(splits[own]) | ~results["set"].isin(results["set"][own])]


def _scores(
    means: pd.Series, errors: pd.Series, is_loss: bool, seeds: pd.Series | None = None, all_seeds: int = 0
) -> list[str]:
    """Build the cells of the methods, with the best in bold, and the number of seeds if some are missing."""
    best = means.min() if is_loss else means.max()
    cells = []
    for method, value in means.items():
        cell = "" if pd.isna(value) else f"**{value:.3f}**" if value == best else f"{value:.3f}"
        cell += _error(errors[method])
        partly = cell and seeds is not None and seeds[method] < all_seeds
        cells.append(f"{cell} ({seeds[method]} of {all_seeds} seeds)" if partly else cell)
    return cells


def _error(value: float) -> str:
    return "" if pd.isna(value) else f" ± {value:.3f}"


def _error_of_mean(errors):
    """Compute the standard error of a mean over sets, from those of the sets; NaN if one of them is not known."""
    return np.sqrt((errors**2).sum(skipna=False)) / len(errors)


def _comparisons(results: pd.DataFrame, score: str, methods: list[str]) -> dict:
    """Return the titles of the last columns, each with a function from the names of sets to the cell."""
    values = results.pivot_table(score, ["set", "seed"], "method")
    found = {}
    if "ours" in methods and score not in LOSSES:
        for title, baselines in BASELINES.items():
            measured = [method for method in baselines if method in methods]
            if measured:
                found[f"GLiClass minus {title}"] = lambda names, measured=measured: _difference(values, names, measured)
    elif {"ours", REFERENCE} <= set(methods) and score == "log_loss":
        means = values.groupby("set").mean()
        ratio = f"GLiClass / {NAMES[REFERENCE]}"
        found[ratio] = lambda names: _ratio(*means.loc[names, ["ours", REFERENCE]].mean())
    if score == next(iter(SCORES[results["task"].iloc[0]])):
        seconds = results.pivot_table("fit_cpu_seconds", "set", "method")[methods]
        title = f"CPU seconds of fit ({', '.join(NAMES[method] for method in methods)})"
        found[title] = lambda names: _seconds(seconds.loc[names].mean(skipna=False))
    return found


def _difference(values: pd.DataFrame, names: list[str], baselines: list[str]) -> str:
    """Build the cell of the difference to the best baseline, on the seeds on which both were measured."""
    cells = []
    for method in baselines:
        by_set = (values["ours"] - values[method]).loc[names].dropna().groupby("set")
        if by_set.ngroups == len(names):
            cells.append((by_set.mean().mean(), _error_of_mean(by_set.sem()), NAMES[method]))
    if not cells:
        return ""
    difference, error, name = min(cells, key=lambda cell: cell[0])
    return f"{difference:+.3f}{_error(error)} ({name}){' behind' if difference <= -0.0005 else ''}"


def _ratio(value: float, reference: float) -> str:
    return "" if pd.isna(value / reference) else f"{value / reference:.2f}{' behind' if value > reference else ''}"


def _seconds(row: pd.Series) -> str:
    return ", ".join("?" if pd.isna(value) else f"{value:.0f}" if value >= 0.95 else f"{value:.1f}" for value in row)
