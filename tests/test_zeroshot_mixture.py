"""benchmarks/zeroshot_mixture.py: the tasks that were written for the training of the package's weights."""

import collections
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from quality_sets import find_sets, load_split
from zeroshot_mixture import WRITTEN_WEIGHT, one_hot, written_tasks

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="module")
def tasks():
    return written_tasks()


def test_each_task_has_classes_and_texts_of_each(tasks):
    assert len(tasks) > 100
    for task in tasks:
        assert len(task.labels) >= 2
        assert task.targets.shape == (len(task.texts), len(task.labels))
        assert (task.targets.sum(axis=1) == 1).all()
        assert task.targets.any(axis=0).all()
        assert all(text.strip() == text != "" for text in task.texts)
        assert all(wording.strip() for wordings in task.wordings.values() for wording in wordings)
        assert task.weight == WRITTEN_WEIGHT


def test_no_text_and_no_name_of_a_task_stands_twice(tasks):
    texts = collections.Counter(text for task in tasks for text in task.texts)
    names = collections.Counter(task.name for task in tasks)
    assert texts.most_common(1)[0][1] == names.most_common(1)[0][1] == 1


def test_a_class_goes_by_its_name_and_its_other_wordings():
    task = one_hot(
        "colours", pd.Series(["grass", "sky"]), pd.Series(["green", "dark_blue"]), {"green": ["like leaves"]}
    )
    rng = np.random.RandomState(0)
    wordings = {task.wording(task.labels.index("green"), rng) for _ in range(200)}
    assert "like leaves" in wordings
    assert "green" in wordings
    assert all("green" in wording for wording in wordings - {"like leaves"})
    assert "dark blue" in {task.wording(0, rng) for _ in range(200)}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not here")
def test_no_test_text_of_the_shared_sets_is_among_them(tasks):
    """Whole sentences; "thank you" and the like stand everywhere."""
    written = {words(text) for task in tasks for text in task.texts}
    for name in find_sets(SHARED):
        split = load_split(SHARED, name, 1, 0)
        assert [text for text in split.X_test if words(text) in written and len(words(text).split()) > 6] == []


def words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
