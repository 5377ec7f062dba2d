"""TokenAttributionDisplay: pieces and colours of a text, and errors."""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from tiny_estimators import ARCHITECTURES, LABELS, TEXTS, tiny, tiny_of

from sklearn_gliclass import GLiClassRegressor, TrainingHistoryDisplay
from sklearn_gliclass.plotting import TokenAttributionDisplay
from sklearn_gliclass.plotting.attribution import AGAINST, FOR, wrap_pieces
from sklearn_gliclass.testing import TINY


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_display_shows_attributions_of_an_estimator(architecture):
    clf = tiny_of(architecture, dtype="float64").fit(TEXTS, LABELS)
    display = TokenAttributionDisplay.from_estimator(clf, TEXTS[0], n_steps=100)
    assert display.tokens == TEXTS[0].split()
    assert display.label == clf.predict([TEXTS[0]])[0]
    logits = clf._logits([TEXTS[0]])[0]
    assert display.output == pytest.approx(logits.max(), abs=1e-6)
    assert display.values.sum() == pytest.approx(display.output - display.baseline, abs=1e-2)
    np.testing.assert_array_equal([bar.get_width() for bar in display.bars_], display.values)
    other = TokenAttributionDisplay.compute(clf, [TEXTS[0]], label=clf.classes_[logits.argmin()])
    assert other.output == pytest.approx(logits.min(), abs=1e-6)
    assert not hasattr(other, "figure_")


def test_multi_label_tables_and_numbers_as_classes():
    clf = tiny().fit(TEXTS, np.array([[1, 0], [0, 1]] * 4))
    assert TokenAttributionDisplay.compute(clf, TEXTS[0], label=1).label == "1"
    table = pd.DataFrame({"title": TEXTS, "year": range(8)})
    clf = tiny().fit(table, LABELS)
    assert TokenAttributionDisplay.compute(clf, table[:1]).text == "title: the goal was late year: 0"


def test_regression_is_in_the_units_of_y():
    y = np.stack([np.arange(8.0) * 100, np.arange(8.0) ** 2], axis=1)
    reg = GLiClassRegressor(**{**TINY, "dtype": "float64"}, label_names=["price", "size"]).fit(TEXTS, y)
    display = TokenAttributionDisplay.compute(reg, TEXTS[0], label="price", n_steps=100)
    assert display.output == pytest.approx(reg.predict([TEXTS[0]])[0, 0], rel=1e-6)
    assert display.values.sum() == pytest.approx(display.output - display.baseline, abs=0.5)
    with pytest.raises(ValueError, match=r"several outputs.*from \['price', 'size'\]"):
        TokenAttributionDisplay.compute(reg, TEXTS[0])
    single = GLiClassRegressor(**TINY).fit(TEXTS, y[:, 0])
    assert TokenAttributionDisplay.compute(single, TEXTS[0]).label == "target"


def test_invalid_arguments_raise():
    clf = tiny().fit(TEXTS, LABELS)
    with pytest.raises(ValueError, match="one text or one row, got 2"):
        TokenAttributionDisplay.compute(clf, TEXTS[:2])
    with pytest.raises(ValueError, match=r"Unknown label 'x'; choose from \['politics', 'sports'\]"):
        TokenAttributionDisplay.compute(clf, TEXTS[0], label="x")
    with pytest.raises(ValueError, match="Unknown style 'pie'; choose from 'bars', 'text'"):
        TokenAttributionDisplay.from_estimator(clf, TEXTS[0], style="pie")


def display_of(text, spans, values):
    return TokenAttributionDisplay(text, spans, np.array(values), "label", 1.0, 0.0)


def test_pieces_are_the_whole_text():
    # Spaces in tokens (byte-level BPE), text without token at both ends, one character of three tokens.
    text = "~a <b> é!"
    display = display_of(text, [(1, 2), (2, 6), (6, 8), (7, 8), (7, 8), (8, 8)], [1.0, -2.0, 0.5, 0.25, 0.25, 9.0])
    pieces = display._pieces()
    assert "".join(piece for piece, _ in pieces) == text
    assert pieces == [("~", 0.0), ("a", 1.0), (" ", 0.0), ("<b>", -2.0), (" ", 0.0), ("é", 1.0), ("!", 0.0)]


def test_html_escapes_and_colours_the_text():
    assert repr(display_of("a", [(0, 1)], [1.0])) == "TokenAttributionDisplay('label: 1.00; without the words 0.00')"
    source = display_of("a <b>", [(0, 1), (2, 5)], [1.0, -2.0])._repr_html_()
    assert "&lt;b&gt;" in source
    assert "<b>label: 1.00; without the words 0.00</b>" in source

    def rgba(colour, alpha):
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        return f"rgba({red}, {green}, {blue}, {alpha})"

    assert f'title="+1.000" style="background: {rgba(FOR, "0.38")}">a<' in source
    assert f'title="-2.000" style="background: {rgba(AGAINST, "0.75")}">&lt;b&gt;<' in source
    assert "rgba" not in display_of("", [], [])._repr_html_()


def test_coloured_text_is_wrapped():
    text = " ".join(f"word{i}" for i in range(60)) + "\nend"
    spans, start = [], 0
    for word in text.split():
        start = text.index(word, start)
        spans.append((start, start + len(word)))
    display = display_of(text, spans, np.linspace(-1, 1.1, 61)).plot(style="text")
    assert "".join(t.get_text() for t in display.text_).replace(" ", "") == "".join(text.split())
    assert max(t.get_position()[0] + len(t.get_text().rstrip()) for t in display.text_) <= 72
    _, ax = plt.subplots()
    assert display.plot(ax, style="text").ax_ is ax
    display.plot(style="bars", max_tokens=5)
    assert [tick.get_text() for tick in display.ax_.get_yticklabels()] == ["word0", "word57", "word58", "word59", "end"]
    display.figure_.canvas.draw()


def test_long_pieces_are_wrapped():
    assert wrap_pieces([("abcdefghij", 1.0)], 4) == [[("abcd", 1.0)], [("efgh", 1.0)], [("ij", 1.0)]]
    assert wrap_pieces([("ab", 1.0), ("\n", 0.0), ("cd", 2.0)], 8) == [[("ab", 1.0)], [("cd", 2.0)]]


def test_plot_without_matplotlib_raises(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"TrainingHistoryDisplay.plot needs matplotlib; install it with"):
        TrainingHistoryDisplay({"loss": [1]}).plot()
