"""Markdown tables of the results of quality.py."""

import pandas as pd

SCORES = {
    "single-label": {"accuracy": "accuracy"},
    "table": {"accuracy": "accuracy", "macro_f1": "macro-F1"},
    "multi-label": {"micro_f1": "micro-F1", "macro_f1": "macro-F1"},
    "regression": {"r2": "R²", "spearman": "Spearman's correlation"},
}
NAMES = {
    "ours": "GLiClass",
    "plain": "from the plain encoder",
    "tfidf": "TF-IDF",
    "embeddings": "embeddings",
    "setfit": "SetFit",
}
ROWS_REGRESSION = {"8": "100 rows", "32": "500 rows"}


def markdown(results: pd.DataFrame) -> str:
    """Build a table for each task, score and number of rows, with means over seeds, the overall mean and fit times."""
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
    cells = results.pivot_table([score, "fit_cpu_seconds"], "set", "method", aggfunc=["mean", "count"])
    means, seconds = cells["mean", score][methods], cells["mean", "fit_cpu_seconds"][methods]
    seeds = cells["count", score][methods].fillna(0).astype(int)
    header = ["set", *(NAMES[method] for method in methods), "GLiClass minus best baseline"]
    header.append(f"CPU seconds of fit ({', '.join(NAMES[method] for method in methods)})")
    lines = [header, ["---"] * len(header)]
    for name, row in means.iterrows():
        lines.append([name, *_scores(row, seeds.loc[name], seeds.max(axis=None)), *_end(row, seconds.loc[name])])
    complete = means.dropna()
    if len(complete) > 1:
        mean = complete.mean()
        lines.append([f"mean of {len(complete)}", *_scores(mean), *_end(mean, seconds.loc[complete.index].mean())])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _restrict_to_common_seeds(results: pd.DataFrame) -> pd.DataFrame:
    """Restrict the baselines to the seeds on which this package was measured."""
    splits = pd.MultiIndex.from_frame(results[["set", "seed"]])
    own = results["method"] == "ours"
    return results[splits.isin(splits[own]) | ~results["set"].isin(results["set"][own])]


def _scores(row: pd.Series, seeds: pd.Series | None = None, all_seeds: int = 0) -> list[str]:
    """Build the cells of the methods, with the best in bold, and the number of seeds if some are missing."""
    cells = []
    for method, value in row.items():
        cell = "" if pd.isna(value) else f"**{value:.3f}**" if value == row.max() else f"{value:.3f}"
        partly = cell and seeds is not None and seeds[method] < all_seeds
        cells.append(f"{cell} ({seeds[method]} of {all_seeds} seeds)" if partly else cell)
    return cells


def _end(row: pd.Series, seconds: pd.Series) -> list[str]:
    """Build the cells of the difference to the best baseline, if both were measured, and of the seconds."""
    baselines = row.drop(["ours", "plain"], errors="ignore")
    difference = row["ours"] - baselines.max() if "ours" in row and len(baselines) else float("nan")
    behind = " (behind)" if difference <= -0.0005 else ""
    return ["" if pd.isna(difference) else f"{difference:+.3f}{behind}", _seconds(seconds)]


def _seconds(row: pd.Series) -> str:
    return ", ".join("?" if pd.isna(value) else f"{value:.0f}" if value >= 0.95 else f"{value:.1f}" for value in row)
