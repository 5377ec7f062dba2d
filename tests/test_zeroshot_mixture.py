"""benchmarks/zeroshot_mixture.py: the written tasks for the training of the weight delta."""

import collections
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import zeroshot
from quality_sets import find_sets, load_split
from zeroshot_mixture import UNTRAINED, WRITTEN_WEIGHT, one_hot, written_tasks

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="module")
def tasks():
    """Load the tasks of the training, and the test tasks."""
    return written_tasks() + written_tasks(UNTRAINED.glob("*.jsonl"))


def test_each_task_has_classes_and_texts_of_each(tasks):
    assert len(written_tasks()) > 100
    for task in tasks:
        assert len(task.labels) >= 2
        assert task.targets.shape == (len(task.texts), len(task.labels))
        assert (task.targets.sum(axis=1) == 1).all()
        assert task.targets.any(axis=0).all()
        assert all(text.strip() == text != "" for text in task.texts)
        assert all(wording.strip() for wordings in task.wordings.values() for wording in wordings)
        assert task.weight == WRITTEN_WEIGHT


def test_texts_and_names_of_a_task_are_distinct(tasks):
    texts = collections.Counter(text for task in tasks for text in task.texts)
    names = collections.Counter(task.name for task in tasks)
    assert texts.most_common(1)[0][1] == names.most_common(1)[0][1] == 1


def test_class_goes_by_its_name_and_its_other_wordings():
    task = one_hot(
        "colours", pd.Series(["grass", "sky"]), pd.Series(["green", "dark_blue"]), {"green": ["like leaves"]}
    )
    rng = np.random.RandomState(0)
    green = task.labels.index("green")
    wordings = {task.wordings_of([green], rng)[0] for _ in range(200)}
    assert "like leaves" in wordings
    assert "green" in wordings
    assert all("green" in wording for wording in wordings - {"like leaves"})
    both = [task.wordings_of([green, 1 - green], rng) for _ in range(200)]
    assert ["green", "dark blue"] in both
    assert "dark blue" in {other for _, other in both}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are missing")
def test_no_test_text_of_the_shared_sets_is_among_them(tasks):
    """Whole sentences; short phrases such as "thank you" are common."""
    written = {words(text) for task in tasks for text in task.texts}
    for name in find_sets(SHARED):
        split = load_split(SHARED, name, 1, 0)
        assert [text for text in split.X_test if words(text) in written and len(words(text).split()) > 6] == []


def test_table_of_the_written_tasks_is_the_mean_macro_f1(monkeypatch, tmp_path):
    """Two tasks whose texts contain names of their classes, the right ones or the wrong ones."""

    class ByName:
        def fit(self, X, y):
            self.classes = y
            return self

        def predict(self, X):
            return np.array([next(name for name in self.classes if name in text) for text in X])

    right = '{"task": "a", "labels": {"red": [], "blue": []}, "texts": [["red", "red"], ["blue", "blue"]]}'
    wrong = '{"task": "b", "labels": {"red": [], "blue": []}, "texts": [["a red", "blue"], ["a blue", "red"]]}'
    (tmp_path / "colours.jsonl").write_text(f"{right}\n{wrong}\n", encoding="utf-8")
    monkeypatch.setattr(zeroshot, "UNTRAINED", tmp_path)
    monkeypatch.setattr(zeroshot, "classifier", lambda model: ByName())
    lines = zeroshot.written_table(["x", "y"]).splitlines()
    assert lines[2:] == [
        "| colours | 2 | 0.500 | 0.500 |",
        "| **mean of all** | 2 | 0.500 | 0.500 |",
        "| tasks on which it is best, or tied |  | 2 | 2 |",
    ]


def words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
