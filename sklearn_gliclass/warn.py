"""Warnings that name the user's line, however deep in the package they arise."""

import os
import sys
import warnings
from pathlib import Path

import joblib
import sklearn

# Frames of these lie between the user's line and the warning: decorators of fit, searches, pipelines.
_BETWEEN = tuple(f"{Path(file).parent}{os.sep}" for file in (__file__, sklearn.__file__, joblib.__file__))


def warn(message: str) -> None:
    """A UserWarning at the line that called the package, scikit-learn's and joblib's frames left out."""
    frame, level = sys._getframe(1), 2
    while frame is not None and frame.f_code.co_filename.startswith(_BETWEEN):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)
