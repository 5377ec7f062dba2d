"""Attribution of a prediction to the tokens of its text."""

import html

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..data.windows import read_windows
from ..explain import compute_token_attributions
from ..in_context import fitted_instructions
from ..inputs import read_texts
from .figure import BLUE, RED, create_axes

FOR, AGAINST = BLUE, RED
STYLES = ("bars", "text")
TEXT_COLUMNS = 72
CHARACTER_WIDTH = 0.602  # of matplotlib's monospaced font, as a fraction of the font size
LINE_HEIGHT = 1.6


class TokenAttributionDisplay:
    """Attribution of the logit of a label to the tokens of a text.

    The attributions are integrated gradients, with the mean token embedding of the vocabulary as the baseline. They sum
    to the logit of the text minus that of the baseline, a text of mean tokens. In a notebook, the display renders as
    coloured text: blue tokens raise the logit, orange ones lower it.

    It is created by :meth:`from_estimator` or :meth:`compute`.

    Parameters
    ----------
    text : str
        The text, as the model reads it.
    spans : list of (int, int)
        Characters ``text[start:end]`` of each token.
    values : ndarray of shape (n_tokens,)
        Attribution of each token, for a regressor in the units of y.
    label : str
        The label.
    output, baseline : float
        Logit of the label, or prediction of a regressor, for the text and for the baseline.

    Attributes
    ----------
    figure_ : matplotlib Figure
        Figure that contains the plot.
    ax_ : matplotlib Axes
        Axes of the plot.
    bars_ : matplotlib BarContainer or None
        The bars. None with ``style="text"``.
    text_ : list of matplotlib Text or None
        The tokens. None with ``style="bars"``.

    References
    ----------
    Sundararajan et al., "Axiomatic Attribution for Deep Networks", 2017, https://arxiv.org/abs/1703.01365

    Examples
    --------
    >>> from sklearn_gliclass import GLiClassClassifier
    >>> from sklearn_gliclass.plotting import TokenAttributionDisplay
    >>> clf = GLiClassClassifier().fit(None, ["sports", "politics"])
    >>> display = TokenAttributionDisplay.from_estimator(clf, "parliament votes on the budget")
    >>> display.label, display.tokens[0]
    ('politics', 'parliament')
    """

    def __init__(self, text, spans, values, label, output, baseline):
        self.text = text
        self.spans = spans
        self.values = values
        self.label = label
        self.output = output
        self.baseline = baseline

    @property
    def tokens(self):
        """Characters of each token, as a list of str."""
        return [self.text[start:end].strip() for start, end in self.spans]

    @classmethod
    def from_estimator(cls, estimator, X, *, label=None, n_steps=16, style="bars", ax=None):
        """Compute and plot the attributions of one prediction.

        Parameters
        ----------
        estimator : GLiClassClassifier or GLiClassRegressor
            Fitted estimator.
        X : str, or array-like of shape (1,) or (1, n_features)
            One text, or one row of a table.
        label : object, optional
            Label whose logit is attributed: one of `classes_`, or of `label_names_` for a regressor and with
            several targets, which need it. If None, the predicted class. A regressor with several outputs needs it.
        n_steps : int, default=16
            Number of points at which the gradient is evaluated. Raise it for more exact sums.
        style : {"bars", "text"}, default="bars"
            Whether to plot a bar for each token, or the coloured text.
        ax : matplotlib Axes, optional
            Axes to plot on. If None, a new figure is created.

        Returns
        -------
        TokenAttributionDisplay
            The display.
        """
        return cls.compute(estimator, X, label=label, n_steps=n_steps).plot(ax, style=style)

    @classmethod
    def compute(cls, estimator, X, *, label=None, n_steps=16):
        """Compute the attributions of one prediction without a plot; in a notebook, the display renders as text.

        Parameters
        ----------
        estimator : GLiClassClassifier or GLiClassRegressor
            Fitted estimator.
        X : str, or array-like of shape (1,) or (1, n_features)
            One text, or one row of a table.
        label : object, optional
            Label whose logit is attributed, as in :meth:`from_estimator`.
        n_steps : int, default=16
            Number of points at which the gradient is evaluated.

        Returns
        -------
        TokenAttributionDisplay
            The display.
        """
        check_is_fitted(estimator, ("model_", "label_names_"))
        X = [X] if isinstance(X, str) else X
        texts = read_texts(X, estimator)
        if len(texts) != 1:
            raise ValueError(f"X must be one text or one row, got {len(texts)}; pass X[:1], or the text as a str.")
        index, name = _find_label(estimator, X, label)
        fitted = estimator.fitted_
        at_once = fitted.labels_per_prompt(getattr(estimator, "max_num_classes", None))
        layout = fitted.layout(instructions=fitted_instructions(estimator))
        _check_is_one_window(estimator, layout, texts, at_once)
        found = compute_token_attributions(
            fitted.model, layout, texts[0], index, at_once, n_steps, fitted.label_embeddings()
        )
        mean, scale, shrinkage = (
            getattr(estimator, unit)[index] if hasattr(estimator, unit) else default
            for unit, default in (("target_mean_", 0.0), ("target_scale_", 1.0), ("shrinkage_", 1.0))
        )
        scale = scale * shrinkage
        output, baseline = (float(value * scale + mean) for value in (found.logit, found.baseline))
        return cls(texts[0], found.spans, found.values * scale, name, output, baseline)

    def plot(self, ax=None, *, style="bars", max_tokens=40):
        """Plot the attributions.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Axes to plot on. If None, a new figure is created.
        style : {"bars", "text"}, default="bars"
            Whether to plot a bar for each token, or the coloured text.
        max_tokens : int, default=40
            Maximum number of bars. Of a longer text, the tokens with the largest absolute attributions are plotted, in
            the order of the text.

        Returns
        -------
        TokenAttributionDisplay
            This display.
        """
        if style not in STYLES:
            raise ValueError(f"Unknown style {style!r}; choose from {', '.join(map(repr, STYLES))}.")
        self.bars_ = self.text_ = None
        if style == "bars":
            self._plot_bars(ax, max_tokens)
        else:
            self._plot_text(ax)
        self.figure_ = self.ax_.figure
        self.ax_.set_title(self._title(), fontsize="medium", loc="left")
        return self

    def _title(self) -> str:
        return f"{self.label}: {self.output:.2f}; without the words {self.baseline:.2f}"

    def _plot_bars(self, ax, max_tokens):
        shown = np.sort(np.argsort(-np.abs(self.values), kind="stable")[:max_tokens])
        self.ax_ = create_axes(self, ax, (5.0, 1.2 + 0.22 * max(3, len(shown))))
        values = self.values[shown]
        self.bars_ = self.ax_.barh(range(len(shown)), values, color=[FOR if v >= 0 else AGAINST for v in values])
        self.ax_.set_yticks(range(len(shown)), [self.tokens[index] for index in shown], fontsize="small")
        self.ax_.invert_yaxis()
        self.ax_.axvline(0, color="0.3", lw=0.8)
        self.ax_.grid(axis="x", alpha=0.3)
        self.ax_.set_axisbelow(True)
        self.ax_.set_xlabel("contribution")

    def _plot_text(self, ax):
        lines = wrap_pieces(self._pieces(), TEXT_COLUMNS)
        width = 7.5
        size = width * 72 / TEXT_COLUMNS / CHARACTER_WIDTH
        self.ax_ = create_axes(self, ax, (width, 0.5 + len(lines) * size * LINE_HEIGHT / 72))
        if ax is not None:
            box = ax.get_window_extent()
            size = box.width / ax.figure.dpi * 72 / TEXT_COLUMNS / CHARACTER_WIDTH
        self.ax_.set(xlim=(0, TEXT_COLUMNS), ylim=(len(lines), 0))
        self.ax_.set_axis_off()
        largest = self._largest()
        self.text_ = []
        for row, line in enumerate(lines):
            column = 0
            for piece, value in line:
                strength = abs(value) / largest
                box = {"facecolor": FOR if value >= 0 else AGAINST, "alpha": 0.75 * strength, "pad": 1.0, "lw": 0}
                self.text_.append(
                    self.ax_.text(column, row + 0.5, piece, family="monospace", fontsize=size, va="center", bbox=box)
                )
                column += len(piece)

    def _largest(self) -> float:
        return float(np.abs(self.values).max(initial=0.0)) or 1.0

    def _pieces(self) -> list[tuple[str, float]]:
        """Split the text into pieces with their values, 0 between tokens; tokens that share a character are added."""
        pieces, done = [], 0
        for (start, end), value in zip(self.spans, self.values, strict=True):
            space = len(self.text[start:end]) - len(self.text[start:end].lstrip())
            start += space
            if start < done:  # a character that consists of several tokens
                if pieces:
                    pieces[-1] = (pieces[-1][0], pieces[-1][1] + value)
                start = done
            elif start > done:
                pieces.append((self.text[done:start], 0.0))
            if end > start:
                pieces.append((self.text[start:end], float(value)))
            done = max(done, end)
        if done < len(self.text):
            pieces.append((self.text[done:], 0.0))
        return pieces

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._title()!r})"

    def _repr_html_(self) -> str:
        """Render the coloured text, with the value of a token as its tooltip."""
        largest = self._largest()
        spans = []
        for piece, value in self._pieces():
            escaped = html.escape(piece)
            if value == 0.0:
                spans.append(escaped)
                continue
            red, green, blue = (int((FOR if value > 0 else AGAINST)[i : i + 2], 16) for i in (1, 3, 5))
            colour = f"rgba({red}, {green}, {blue}, {0.75 * abs(value) / largest:.2f})"
            spans.append(f'<span title="{value:+.3f}" style="background: {colour}">{escaped}</span>')
        title = html.escape(self._title())
        return (
            f'<div style="line-height: 1.8"><b>{title}</b><br><span style="white-space: pre-wrap">'
            f"{''.join(spans)}</span></div>"
        )


def wrap_pieces(pieces, n_columns: int) -> list[list[tuple[str, float]]]:
    """Break (text, value) pieces into lines of at most `n_columns` characters, at spaces where there are any.

    Examples
    --------
    >>> wrap_pieces([("my", 1.0), (" new ", 0.0), ("card", 2.0)], 7)
    [[('my', 1.0), (' new ', 0.0)], [('card', 2.0)]]
    """
    lines, room = [[]], n_columns
    for text, value in pieces:
        for number, part in enumerate(text.split("\n")):
            if number:
                lines.append([])
                room = n_columns
            while part:
                if len(part) > room and part.strip() and lines[-1]:
                    lines.append([])
                    part, room = part.lstrip(" "), n_columns
                    continue
                taken, part = part[:room], part[room:]
                lines[-1].append((taken, value))
                room -= len(taken)
                if not part.strip():
                    break
    return lines


def _check_is_one_window(estimator, layout, texts: list[str], at_once: int | None) -> None:
    """Raise if the estimator reads the text in several windows, whose logits are joined."""
    n_labels = len(layout.label_texts)
    at_once = min(at_once or n_labels, n_labels)
    if read_windows(layout, layout.tokenize(texts), estimator.long_texts, estimator.window_overlap, at_once):
        raise ValueError(
            f"The text is longer than max_length={layout.max_length}, and with long_texts={estimator.long_texts!r} it "
            "is read in windows, whose tokens have no common attribution; give a passage of it, or set "
            'long_texts="truncate".'
        )


def _find_label(estimator, X, label) -> tuple[int, str]:
    """Return index and name of the given label, or of the predicted one."""
    classes = getattr(estimator, "classes_", estimator.label_names_)
    is_several = isinstance(classes, list)  # targets of a classifier, or outputs of a regressor
    names = list(estimator.label_names_ if is_several else classes)
    if label is not None:
        if label not in names:
            raise ValueError(f"Unknown label {label!r}; choose from {[str(name) for name in names]}.")
        index = names.index(label)
    elif not is_several:
        index = int(estimator.predict_proba(X)[0].argmax())
    elif len(names) == 1:
        index = 0
    else:
        what = "classifier has several targets" if hasattr(estimator, "classes_") else "regressor has several outputs"
        raise ValueError(f"This {what}; choose a label with label=, from {names}.")
    return index, str(names[index])
