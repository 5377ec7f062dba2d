"""Settings and fixtures of all tests."""

import gc
import os

# Before SciPy is imported: scikit-learn skips its check of array API inputs otherwise.
os.environ.setdefault("SCIPY_ARRAY_API", "1")
os.environ.setdefault("MPLBACKEND", "agg")  # no windows

import pytest
import torch
from library_versions import is_scikit_learn_older_than

# Modules and collected tests stay until the end; the garbage collector would go through them again and again.
gc.disable()

# One thread: the matrices are tiny, and the order of sums depends on the number of threads.
ALL_THREADS = torch.get_num_threads()
torch.set_num_threads(1)


@pytest.fixture
def all_threads():
    """Use all threads, for tests with a real encoder."""
    torch.set_num_threads(ALL_THREADS)
    yield
    torch.set_num_threads(1)


# Pages of the documentation that take long: this one exports a model with the default encoder.
SLOW_PAGES = {"onnx.md"}
PAGES_OF_SCIKIT_LEARN = {"calibration.md": "1.8"}  # the version that they need


@pytest.hookimpl(tryfirst=True)  # before tests are selected by their markers
def pytest_collection_modifyitems(items):
    """Mark slow pages, and run the slowest tests first, so that parallel processes end at about the same time."""
    for item in items:
        if item.name in SLOW_PAGES:
            item.add_marker("full")
        if is_scikit_learn_older_than(PAGES_OF_SCIKIT_LEARN.get(item.name, "0")):
            item.add_marker(pytest.mark.skip(reason="needs a newer scikit-learn"))
    items.sort(key=lambda item: not item.name.startswith("test_runs_from_top_to_bottom"))


def pytest_collection_finish():
    """Collect garbage from now on, but not among the modules and tests."""
    gc.freeze()
    gc.enable()
