"""Categories of the warnings that users may want to filter."""


class TruncationWarning(UserWarning):
    """Texts are longer than `max_length` and were truncated."""


class LabelNamesWarning(UserWarning):
    """The model cannot read much from the label names: they are numbers, or tokens that its tokenizer does not know."""
