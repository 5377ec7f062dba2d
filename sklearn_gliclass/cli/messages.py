"""Messages of the command line: warnings, errors and exit codes."""

import contextlib
import os
import warnings

import typer

FAILURE = 1  # 2 is wrong usage, as in other commands
_EXPECTED = (ImportError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)


def say(message: str) -> None:
    """Write a line to standard error, which keeps standard output for tables."""
    typer.echo(message, err=True)


@contextlib.contextmanager
def short_messages():
    """Show warnings as lines, and errors as one line with exit code 1.

    The environment variable ``SKLEARN_GLICLASS_TRACEBACK=1`` shows tracebacks.
    """
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *place, **options: say(f"warning: {message}")
        try:
            yield
        except _EXPECTED as error:
            if os.environ.get("SKLEARN_GLICLASS_TRACEBACK"):
                raise
            text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
            say(f"error: {text or type(error).__name__}")
            raise typer.Exit(FAILURE) from None
