"""Warning categories of the package."""


class TruncationWarning(UserWarning):
    """Warning for texts that are longer than `max_length` and were truncated.

    Examples
    --------
    >>> import warnings
    >>> from sklearn_gliclass.exceptions import TruncationWarning
    >>> warnings.simplefilter("ignore", TruncationWarning)
    """


class LabelNamesWarning(UserWarning):
    """Warning for label names without meaning to the model: numbers, or words that its tokenizer does not know.

    Examples
    --------
    >>> import warnings
    >>> from sklearn_gliclass.exceptions import LabelNamesWarning
    >>> warnings.simplefilter("error", LabelNamesWarning)
    """
