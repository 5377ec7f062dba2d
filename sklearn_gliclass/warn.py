"""Warnings that point to the caller's line, however deep in the package they arise; and who called."""

import os
import sys
import warnings
from pathlib import Path

import joblib
import sklearn
import torch

from .exceptions import TruncationWarning

# Frames of these lie between the user's line and the warning: decorators, searches, pipelines.
_LIBRARIES = (joblib, sklearn, torch)
_BETWEEN = tuple(f"{Path(file).parent}{os.sep}" for file in (__file__, *(library.__file__ for library in _LIBRARIES)))


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line that called the package; frames of the libraries around it are left out."""
    frame, level = sys._getframe(1), 2
    while frame is not None and frame.f_code.co_filename.startswith(_BETWEEN):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def warn_of_truncation(n_truncated: int, n_texts: int, max_length: int) -> None:
    """Warn, once for a call, of texts that were too long."""
    if n_truncated:
        warn(
            f"{n_truncated} of {n_texts} texts are too long for max_length={max_length} tokens beside the labels and "
            "were truncated at the end.",
            TruncationWarning,
        )


# Frames of these lie between `fit` and whoever called it: a decorator, and a pipeline that does one fit.
_WRAPPERS = tuple(str(Path(sklearn.__file__).parent / name) for name in ("base.py", "pipeline.py", f"utils{os.sep}"))
_OWN = f"{Path(__file__).parent}{os.sep}"


def is_called_by_user() -> bool:
    """Whether the package was called by the user's program, and not by a search or another library on its way."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith((_OWN, *_WRAPPERS)):
        frame = frame.f_back
    return frame is None or not frame.f_code.co_filename.startswith(_BETWEEN)
