"""The documentation's table of hyperparameters is the one that the docstrings give."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("hyperparameter_table", ROOT / "tools" / "hyperparameter_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_table_is_up_to_date(tool):
    found = tool.PAGE.read_text(encoding="utf-8")
    assert found == tool.page(), "docs/hyperparameters.md is behind the docstrings: run `make hyperparameters`"


def test_each_hyperparameter_has_one_row(tool):
    from inspect import signature

    from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor

    rows = [line for line in tool.page().splitlines() if line.startswith("| `")]
    named = [name.strip("` ") for line in rows for name in line.split(" | ")[0].strip("| ").split(" (")[0].split(", ")]
    assert sorted(named) == sorted(signature(GLiClassClassifier).parameters | signature(GLiClassRegressor).parameters)
    assert all(line.replace("\\|", "").count("|") == 5 for line in rows)


def test_hyperparameter_without_a_line_raises(tool, monkeypatch):
    monkeypatch.delitem(tool.WHEN_TO_CHANGE, "lr")
    with pytest.raises(SystemExit, match=r"no line for \['lr'\]"):
        tool.page()
