"""Warnings that name the user's line, however deep in the package they arise."""

import os
import sys
import warnings
from pathlib import Path

import joblib
import sklearn
import torch

# Frames of these lie between the user's line and the warning: decorators, searches, pipelines.
_LIBRARIES = (joblib, sklearn, torch)
_BETWEEN = tuple(f"{Path(file).parent}{os.sep}" for file in (__file__, *(library.__file__ for library in _LIBRARIES)))


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line that called the package; frames of the libraries around it are left out."""
    frame, level = sys._getframe(1), 2
    while frame is not None and frame.f_code.co_filename.startswith(_BETWEEN):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
