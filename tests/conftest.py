"""What all tests share."""

import os

# Before SciPy is imported: scikit-learn skips its check of array API inputs otherwise.
os.environ.setdefault("SCIPY_ARRAY_API", "1")
os.environ.setdefault("MPLBACKEND", "agg")  # no windows

import pytest
import torch

# Many tiny matrices: threads would only wait for each other; and sums differ with their number.
ALL_THREADS = torch.get_num_threads()
torch.set_num_threads(1)


@pytest.fixture
def all_threads():
    """For tests with a real encoder."""
    torch.set_num_threads(ALL_THREADS)
    yield
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """What takes longest comes first: processes that share the tests then end at about the same time."""
    items.sort(key=lambda item: not item.name.startswith("test_runs_from_top_to_bottom"))
