"""Late import of optional libraries, with an error that gives the pip line."""

import importlib
from types import ModuleType


def import_optional(module: str, extra: str, caller: str) -> ModuleType:
    """Import a module of an optional library.

    Parameters
    ----------
    module : str
        Name of the module, for example "fastapi".
    extra : str
        Extra of this package that installs the library.
    caller : str
        What needs the library, for the error message.

    Raises
    ------
    ImportError
        If the library is not installed; the message gives the pip line.

    Examples
    --------
    >>> import_optional("json", "serve", "This example").__name__
    'json'
    >>> import_optional("no_such_library", "serve", "This example")
    Traceback (most recent call last):
    ImportError: This example needs no_such_library; install it with: pip install "sklearn-gliclass[serve]"
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = (error.name or module).split(".")[0]
        raise ImportError(
            f'{caller} needs {missing}; install it with: pip install "sklearn-gliclass[{extra}]"', name=missing
        ) from error
