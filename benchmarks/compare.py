"""Compare two files of tracked ratios: `python benchmarks/compare.py OLD.json NEW.json`.

A ratio is worse if it changed in the wrong direction by more than the tolerance of its kind; then the exit status is 1.
A ratio that is in one of the files only is listed without a verdict.
"""

import argparse
import json
from pathlib import Path

# Relative changes that are within the noise: quality has one seed, times vary between runs.
TOLERANCES = {"quality": 0.03, "speed": 0.15, "size": 0.02}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    options = parser.parse_args()
    rows = compare(read(options.old), read(options.new))
    print(markdown(rows, options.old.stem, options.new.stem))
    return int(any(verdict == "worse" for *_, verdict in rows))


def read(path: Path) -> dict[str, dict]:
    """Return the ratios of a file of ``track.py``."""
    try:
        ratios = json.loads(path.read_text(encoding="utf-8"))["ratios"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(
            f"{path} is not a file of benchmarks/track.py ({error!r}); write one with --output."
        ) from error
    return ratios


def compare(old: dict[str, dict], new: dict[str, dict]) -> list[tuple]:
    """Return name, old value, new value, relative change and verdict of each ratio.

    The verdict is "better", "worse", "same" (within the tolerance), or "only old" and "only new" without a change.
    """
    rows = []
    for name in {**old, **new}:
        if name not in old or name not in new:
            side = "old" if name in old else "new"
            rows.append((name, old.get(name, {}).get("value"), new.get(name, {}).get("value"), None, f"only {side}"))
            continue
        before, after = old[name]["value"], new[name]["value"]
        change = after / before - 1
        gain = change if new[name]["better"] == "higher" else -change
        tolerance = TOLERANCES[name.split(":")[0]]
        verdict = "same" if abs(change) <= tolerance else "better" if gain > 0 else "worse"
        rows.append((name, before, after, change, verdict))
    return rows


def markdown(rows: list[tuple], old: str, new: str) -> str:
    lines = [f"| ratio | {old} | {new} | change | verdict |", "| --- | --- | --- | --- | --- |"]
    for name, before, after, change, verdict in rows:
        values = ("-" if value is None else f"{value:.3f}" for value in (before, after))
        lines.append(f"| {name} | {' | '.join(values)} | {'-' if change is None else f'{change:+.1%}'} | {verdict} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
