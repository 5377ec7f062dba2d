"""Warnings that point to the caller's line (`stacklevel`), and detection of the caller."""

import os
import sys
import warnings
from pathlib import Path

import joblib
import sklearn
import torch

from .exceptions import TruncationWarning

# Frames of these are between the caller's line and the warning: decorators, searches, pipelines.
_LIBRARIES = (joblib, sklearn, torch)
_LIBRARY_FOLDERS = tuple(
    f"{Path(file).parent}{os.sep}" for file in (__file__, *(library.__file__ for library in _LIBRARIES))
)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn with the `stacklevel` of the caller's line; frames of libraries in between are skipped."""
    frame, level = sys._getframe(1), 2
    while frame is not None and frame.f_code.co_filename.startswith(_LIBRARY_FOLDERS):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def warn_truncation(n_truncated: int, n_texts: int, max_length: int) -> None:
    """Warn, once per call, that texts were truncated."""
    if n_truncated:
        warn(
            f"{n_truncated} of {n_texts} texts are too long for max_length={max_length} tokens beside the labels and "
            "were truncated at the end.",
            TruncationWarning,
        )


# Frames of these are between `fit` and its caller: a decorator, and pipelines, which fit once.
_WRAPPERS = tuple(str(Path(sklearn.__file__).parent / name) for name in ("base.py", "pipeline.py", f"utils{os.sep}"))
_PACKAGE_FOLDER = f"{Path(__file__).parent}{os.sep}"


def is_called_by_user() -> bool:
    """Return whether user code called the package directly, and not a search or another library."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith((_PACKAGE_FOLDER, *_WRAPPERS)):
        frame = frame.f_back
    return frame is None or not frame.f_code.co_filename.startswith(_LIBRARY_FOLDERS)
