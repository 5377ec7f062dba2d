"""What all tests share."""

import os

# Before SciPy is imported: scikit-learn skips its check of array API inputs otherwise.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Many tiny matrices: threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
