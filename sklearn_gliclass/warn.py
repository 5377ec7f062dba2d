"""Warnings that point to the caller's line (`stacklevel`), and detection of the caller."""

import os
import sys
import warnings
from pathlib import Path

from .exceptions import TruncationWarning

_PACKAGE_FOLDER = f"{Path(__file__).parent}{os.sep}"
# Frames of these are between the caller's line and the warning: decorators, searches, pipelines.
_LIBRARIES = ("joblib", "sklearn", "torch")
# Frames of these parts of scikit-learn are between `fit` and its caller: a decorator, and pipelines, which fit once.
_WRAPPERS = ("base.py", "pipeline.py", f"utils{os.sep}")


def _folders(libraries: tuple[str, ...]) -> tuple[str, ...]:
    """Return the folders of the libraries that are imported; others have no frames."""
    files = (sys.modules[name].__file__ for name in libraries if name in sys.modules)
    return tuple(f"{Path(file).parent}{os.sep}" for file in files if file is not None)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn with the `stacklevel` of the caller's line; frames of libraries in between are skipped."""
    frame, level, folders = sys._getframe(1), 2, (_PACKAGE_FOLDER, *_folders(_LIBRARIES))
    while frame is not None and frame.f_code.co_filename.startswith(folders):
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


def is_called_by_user() -> bool:
    """Return whether user code called the package directly, and not a search or another library."""
    frame = sys._getframe(1)
    wrappers = tuple(folder + part for folder in _folders(("sklearn",)) for part in _WRAPPERS)
    while frame is not None and frame.f_code.co_filename.startswith((_PACKAGE_FOLDER, *wrappers)):
        frame = frame.f_back
    return frame is None or not frame.f_code.co_filename.startswith((_PACKAGE_FOLDER, *_folders(_LIBRARIES)))
