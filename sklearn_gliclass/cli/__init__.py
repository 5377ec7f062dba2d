"""The command ``sklearn-gliclass``, on typer, which is imported at the first use."""

import sys

from ..optional_dependencies import import_optional


def main() -> None:
    """Run the command line, and exit with its status."""
    try:
        import_optional("typer", "cli", "The command sklearn-gliclass")
    except ImportError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)
    from .commands import app

    app(prog_name="sklearn-gliclass")
