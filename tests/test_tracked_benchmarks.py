"""Comparison of two files of tracked ratios."""

import json
import sys

import pytest

import compare as comparison

QUALITY, SPEED, SIZE = "quality: accuracy", "speed: fit", "size: checkpoint"


def ratios(**values):
    better = {QUALITY: "higher", SPEED: "lower", SIZE: "lower"}
    names = {"quality": QUALITY, "speed": SPEED, "size": SIZE}
    return {names[kind]: {"value": value, "better": better[names[kind]]} for kind, value in values.items()}


@pytest.mark.parametrize(
    ("kind", "old", "new", "verdict"),
    [
        ("quality", 1.2, 1.3, "better"),
        ("quality", 1.2, 1.1, "worse"),
        ("quality", 1.2, 1.17, "same"),
        ("speed", 2.0, 1.6, "better"),
        ("speed", 2.0, 2.4, "worse"),
        ("speed", 2.0, 2.2, "same"),
        ("size", 1.0, 1.03, "worse"),
        ("size", 1.0, 1.01, "same"),
    ],
)
def test_verdict_depends_on_direction_and_tolerance(kind, old, new, verdict):
    [row] = comparison.compare(ratios(**{kind: old}), ratios(**{kind: new}))
    assert row[1:3] == (old, new)
    assert row[3] == pytest.approx(new / old - 1)
    assert row[4] == verdict


def test_ratios_of_one_file_have_no_verdict():
    rows = comparison.compare(ratios(quality=1.0), ratios(speed=2.0))
    assert rows == [(QUALITY, 1.0, None, None, "only old"), (SPEED, None, 2.0, None, "only new")]
    assert "| 1.000 | - | - | only old |" in comparison.markdown(rows, "a", "b")


def test_status_tells_whether_a_ratio_is_worse(tmp_path, monkeypatch, capsys):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps({"version": "0", "ratios": ratios(quality=1.2, speed=2.0)}))
    new.write_text(json.dumps({"version": "1", "ratios": ratios(quality=1.2, speed=3.0)}))
    for files, status in (((old, new), 1), ((new, old), 0), ((old, old), 0)):
        monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, files)])
        assert comparison.main() == status
    assert "| speed: fit | 2.000 | 3.000 | +50.0% | worse |" in capsys.readouterr().out


def test_other_files_raise(tmp_path):
    path = tmp_path / "x.json"
    for content in ("[]", "{}", "no JSON"):
        path.write_text(content)
        with pytest.raises(SystemExit, match="not a file of benchmarks/track"):
            comparison.read(path)
