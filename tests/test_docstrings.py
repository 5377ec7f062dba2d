"""Shared docstring entries, which are filled in or raise an error at import."""

import inspect

import pytest

from sklearn_gliclass.docstrings import ENTRIES, fill, fill_docstring

TWO = {"a, b": "a, b : int\n    Two numbers.\n\n    Small ones.", "c": 'c : str, default="x"\n    A text.'}


def test_entries_are_indented_like_their_placeholder():
    filled = fill("    %(c)s\n    own : float\n        A number.\n    %(a, b)s\n", TWO)
    assert filled == (
        '    c : str, default="x"\n        A text.\n    own : float\n        A number.\n'
        "    a, b : int\n        Two numbers.\n\n        Small ones.\n"
    )


@pytest.mark.parametrize(
    ("docstring", "message"),
    [
        ("%(a, b)s\n%(c)s\n%(d)s", r"unknown are \['d'\], missing are \[\], repeated are \[\]"),
        ("%(a, b)s", r"missing are \['c'\]"),
        ("%(a, b)s\n%(c)s\n%(c)s", r"repeated are \['c'\]"),
        ("%(a)s\n%(c)s", r"unknown are \['a'\], missing are \['a, b'\]"),
    ],
)
def test_wrong_placeholders_raise(docstring, message):
    with pytest.raises(ValueError, match=message):
        fill(docstring, TWO)


def test_wrong_placeholders_raise_at_the_definition_of_the_class():
    with pytest.raises(ValueError, match=r"unknown are \['learning_rate'\]"):

        @fill_docstring()
        class Estimator:
            """An estimator.

            %(learning_rate)s
            """


def test_class_may_state_another_type():
    class Estimator:
        __doc__ = "\n".join(f"%({names})s" for names in ENTRIES)

    documentation = inspect.getdoc(fill_docstring(lr="float, default=1.0")(Estimator))
    assert "\nlr : float, default=1.0\n    Peak learning rate" in documentation
    assert ENTRIES["lr"].startswith("lr : float, default=1e-4\n")
    with pytest.raises(KeyError):
        fill_docstring(learning_rate="float")


def test_missing_docstrings_are_not_filled():
    class Estimator:  # as with python -OO
        pass

    assert fill_docstring()(Estimator).__doc__ is None


def test_entries_fit_on_a_line_and_are_sentences():
    for names, text in ENTRIES.items():
        head, *body = text.splitlines()
        assert head.startswith(f"{names} : ")
        assert all(len(line) <= 116 and (not line or line.startswith("    ")) for line in body)
        assert all(paragraph.strip().endswith(".") for paragraph in "\n".join(body).split("\n\n")), names
