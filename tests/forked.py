"""Forks of this process, which has imported the libraries already; a new interpreter takes seconds for that."""

import multiprocessing
import os
import sys
import warnings
from pathlib import Path

import pytest

needs_fork = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")


def start(function, *args, output: Path | None = None, environment: dict | None = None):
    """Start a function in a fork; what it writes to standard output and standard error goes to a file."""
    process = multiprocessing.get_context("fork").Process(target=_run, args=(function, args, output, environment or {}))
    process.start()
    return process


def _run(function, args, output, environment):
    # The thread pool of the tokenizers stays in the parent process, and waiting for it would never end.
    os.environ.update({"TOKENIZERS_PARALLELISM": "false", **environment})
    if output is not None:
        stream = open(output, "w", buffering=1)  # noqa: SIM115 - stays open until the process ends
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        sys.stdout = sys.stderr = stream
        warnings.showwarning = _write_warning
    status = function(*args)
    sys.exit(status if isinstance(status, int) else 0)


def _write_warning(message, category, filename, lineno, file=None, line=None):
    """Write a warning, which pytest would record."""
    sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))
