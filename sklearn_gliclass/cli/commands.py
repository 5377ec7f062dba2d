"""The commands of ``sklearn-gliclass``."""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from sklearn.base import is_regressor

from .._version import __version__
from ..classifier import GLiClassClassifier
from ..estimator_folder import load_estimator
from ..regressor import GLiClassRegressor
from ..targets import MULTI, logits_to_probabilities
from .messages import say, short_messages
from .metrics_report import classification_metrics, regression_metrics, report
from .table_files import check_file, check_folder, check_output, read_table, take_columns, write_table

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    help="""Text classification and regression with models that read the names of the labels.

    Tables are csv, csv.gz, tsv, jsonl or parquet files; a txt file has one text per line.

    Without examples:  sklearn-gliclass zero-shot texts.csv --labels sports,politics -o out.csv

    With examples:  sklearn-gliclass fit data.csv --text text --label label -o model

    Then:  sklearn-gliclass predict model new.csv -o out.csv
    """,
)

Data = Annotated[Path, typer.Argument(help="Table: csv, csv.gz, tsv, jsonl, parquet or txt.", show_default=False)]
Model = Annotated[str, typer.Argument(help="Folder that `fit` has written.", show_default=False)]
Text = Annotated[
    list[str],
    typer.Option("--text", "-t", help="Column of the texts; several columns (-t title -t body) are read as a table."),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the model to write.", show_default=False)]
OutTable = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Table to write; without it, csv goes to standard output.", show_default=False),
]
Separator = Annotated[
    str | None,
    typer.Option("--separator", help="A cell may hold several labels, separated by this: --separator ';'."),
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the data. By default, by the size of the data.", min=0)]
Frozen = Annotated[
    bool, typer.Option("--freeze-encoder", help="Train the head only: many times faster, often less accurate.")
]
Encoder = Annotated[
    str | None, typer.Option(help="Folder or hub name of another sentence encoder, for example for other languages.")
]
Parameter = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any other hyperparameter, for example --set lr=5e-5 --set batch_size=16."),
]
Seed = Annotated[int, typer.Option(help="Seed of the random numbers.")]
Device = Annotated[str, typer.Option(help="Device: auto, cpu, cuda, mps.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Proba = Annotated[bool, typer.Option("--proba", help="Write the probability of each label as a column.")]


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"sklearn-gliclass {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Hold the options before the command."""


@app.command()
def fit(
    data: Data,
    out: Out,
    text: Text = ["text"],  # noqa: B006  typer needs a list
    label: Annotated[
        list[str], typer.Option("--label", "-l", help="Column of the labels; repeat it for several targets.")
    ] = ["label"],  # noqa: B006
    separator: Separator = None,
    epochs: Epochs = None,
    freeze_encoder: Frozen = False,
    encoder: Encoder = None,
    parameter: Parameter = None,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Train a classifier on labelled texts, and save it to a folder.

    Use words as labels ("sports", not "3"): the model reads them. Eight examples per label are a good start.

    Example:  sklearn-gliclass fit data.csv --text text --label label -o model
    """
    with short_messages():
        check_folder(out)
        table = read_table(data)
        y = take_columns(table, label, data)
        if len(label) > 1 and separator is not None:
            raise ValueError(f"--separator splits the cells of one column of labels, and there are {len(label)}.")
        hyperparameters = _hyperparameters(epochs, freeze_encoder, encoder, parameter, seed, device, quiet)
        X, y = _without_missing(take_columns(table, text, data), y, ", ".join(label), how="all")
        y = y if len(label) > 1 else y[label[0]]
        targets = y if separator is None else _indicators(y, separator)
        clf = GLiClassClassifier(**hyperparameters).fit(X, targets)
        clf.save_pretrained(out)
        say(f"{len(X)} texts, {len(clf.label_names_)} labels; model written to {out}")


@app.command()
def regress(
    data: Data,
    out: Out,
    text: Text = ["text"],  # noqa: B006
    target: Annotated[list[str], typer.Option("--target", "-y", help="Column of the numbers; may be repeated.")] = [  # noqa: B006
        "target"
    ],
    epochs: Epochs = None,
    freeze_encoder: Frozen = False,
    encoder: Encoder = None,
    parameter: Parameter = None,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Train a model that predicts numbers from texts, and save it to a folder.

    Example:  sklearn-gliclass regress reviews.csv --text review --target stars -o model
    """
    with short_messages():
        check_folder(out)
        table = read_table(data)
        hyperparameters = _hyperparameters(epochs, freeze_encoder, encoder, parameter, seed, device, quiet)
        X, y = _without_missing(take_columns(table, text, data), take_columns(table, target, data), ", ".join(target))
        reg = GLiClassRegressor(**hyperparameters).fit(X, y[target[0]] if len(target) == 1 else y)
        reg.save_pretrained(out)
        say(f"{len(X)} texts; model written to {out}")


@app.command()
def predict(
    model: Model,
    data: Data,
    out: OutTable = None,
    proba: Proba = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Predict a table, and write it with the columns "prediction" and "probability".

    The columns of the texts are those that the model was trained on.

    Example:  sklearn-gliclass predict model new.csv -o out.csv
    """
    with short_messages():
        if out is not None:
            check_output(out)
        table = read_table(data)
        estimator = load_estimator(model, device=device, verbose=int(not quiet))
        _write(_predicted(estimator, table, _inputs(estimator, table, data), proba), out)


@app.command()
def evaluate(
    model: Model,
    data: Data,
    label: Annotated[list[str], typer.Option("--label", "-l", help="Column of the true labels or numbers.")] = [  # noqa: B006
        "label"
    ],
    separator: Separator = None,
    metrics: Annotated[Path | None, typer.Option(help="JSON file to which the metrics are written too.")] = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Compare predictions with the true labels of a table: accuracy, F1, and a line for each label.

    Use texts that the model was not trained on.

    Example:  sklearn-gliclass evaluate model test.csv --label label
    """
    with short_messages():
        if metrics is not None:
            check_file(metrics)
        table = read_table(data)
        estimator = load_estimator(model, device=device, verbose=int(not quiet))
        X, y = _without_missing(_inputs(estimator, table, data), take_columns(table, label, data), ", ".join(label))
        truth = y[label[0]] if len(label) == 1 else y
        values, text = _evaluate(estimator, X, truth, separator)
        if metrics is not None:
            metrics.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        typer.echo(text)


@app.command("zero-shot")
def zero_shot(
    data: Data,
    labels: Annotated[
        str | None, typer.Option("--labels", help="Labels, with commas: sports,politics,weather.", show_default=False)
    ] = None,
    labels_file: Annotated[
        Path | None, typer.Option(help="File with one label per line, for labels that contain commas.")
    ] = None,
    out: OutTable = None,
    text: Text = ["text"],  # noqa: B006
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Folder or hub name of another GLiClass checkpoint.")
    ] = None,
    multi_label: Annotated[bool, typer.Option("--multi-label", help="A text may have several labels or none.")] = False,
    proba: Proba = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Classify texts without training, by the names of the labels.

    Use plain words, and say more where a word is ambiguous: "football results" rather than "FB".

    Example:  sklearn-gliclass zero-shot texts.csv --labels sports,politics,weather -o out.csv
    """
    with short_messages():
        if out is not None:
            check_output(out)
        names = _label_list(labels, labels_file)
        table = read_table(data)
        X = take_columns(table, text, data)
        problem: dict[str, Any] = {"problem_type": "multi_label_classification"} if multi_label else {}
        clf = GLiClassClassifier(pretrained=model, device=device, verbose=int(not quiet), **problem).fit(None, names)
        _write(_predicted(clf, table, X, proba), out)


# -- parts ----------------------------------------------------------------------------------------


def _hyperparameters(epochs, freeze_encoder, encoder, parameter, seed, device, quiet) -> dict:
    further = dict(_read_parameter(item) for item in parameter or [])
    return {
        "max_epochs": epochs,
        "freeze_encoder": freeze_encoder,
        "encoder_model": encoder,
        "random_state": seed,
        "device": device,
        "verbose": int(not quiet),
        **further,
    }


def _read_parameter(item: str) -> tuple[str, object]:
    """Read ``name=value``; the value is JSON, or else a string."""
    name, sign, value = item.partition("=")
    if not sign or name not in GLiClassClassifier._get_param_names():
        raise ValueError(
            f"--set {item!r} must be NAME=VALUE with the name of a hyperparameter, for example --set lr=5e-5; the "
            "documentation lists them."
        )
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _label_list(labels: str | None, labels_file: Path | None) -> list[str]:
    if labels is not None and labels_file is None:
        lines = labels.split(",")
    elif labels is None and labels_file is not None:
        lines = labels_file.read_text(encoding="utf-8-sig").splitlines()
    else:
        raise typer.BadParameter("give the labels with --labels sports,politics or with --labels-file FILE.")
    names = [line.strip() for line in lines if line.strip()]
    if len(names) < 2:
        raise ValueError(f"At least two labels are needed, got {names}.")
    return names


def _without_missing(X: pd.DataFrame, y, what: str, how: str = "any"):
    """Leave out rows without a label in any or in all columns of y; missing texts are an error of `fit`."""
    is_missing = np.asarray(y.isna()).reshape(len(y), -1)
    missing = is_missing.all(axis=1) if how == "all" else is_missing.any(axis=1)
    if missing.all():
        raise ValueError(f"The column {what!r} is empty.")
    if missing.any():
        say(f"warning: {missing.sum()} of {len(y)} rows have no {what} and are left out")
    return X[~missing], y[~missing]


def _indicators(y, separator: str) -> pd.DataFrame:
    """Convert cells with several labels to a table of 0 and 1."""
    sets = [_labels_of(cell, separator) for cell in y]
    names = sorted(set().union(*sets))
    return pd.DataFrame([[int(name in labels) for name in names] for labels in sets], columns=names, index=y.index)


def _labels_of(cell, separator: str) -> set[str]:
    return {label.strip() for label in str(cell).split(separator) if label.strip()}


def _inputs(estimator, table: pd.DataFrame, source) -> pd.DataFrame:
    """Return the columns that the estimator was fitted on."""
    names = getattr(estimator, "feature_names_in_", None)
    return take_columns(table, ["text"] if names is None else list(names), source)


def _is_multi_label(estimator) -> bool:
    return not is_regressor(estimator) and estimator._kind == MULTI


def _predicted(estimator, table: pd.DataFrame, X: pd.DataFrame, proba: bool) -> pd.DataFrame:
    """Return the table with the predictions as further columns."""
    if is_regressor(estimator):
        values = np.asarray(estimator.predict(X)).reshape(len(X), -1)
        names = ["prediction"] if values.shape[1] == 1 else [f"prediction_{name}" for name in estimator.target_names_]
        return table.assign(**dict(zip(names, values.T, strict=True)))
    logits = estimator._logits(X)
    if isinstance(estimator.classes_, list):
        return table.assign(**_predicted_outputs(estimator, logits, proba))
    names, multi_label = np.asarray(estimator.classes_), _is_multi_label(estimator)
    predicted, probabilities = estimator._decide(logits), logits_to_probabilities(logits, estimator._kind)
    if multi_label:
        columns = {"prediction": [";".join(map(str, names[row])) for row in predicted.astype(bool)]}
    else:
        columns = {"prediction": predicted, "probability": probabilities.max(axis=1)}
    if proba:
        columns |= {f"probability_{name}": column for name, column in zip(names, probabilities.T, strict=True)}
    return table.assign(**columns)


def _predicted_outputs(estimator, logits: np.ndarray, proba: bool) -> dict:
    """Return the columns of the predictions of several targets."""
    columns = {}
    predicted, probabilities = estimator._decide(logits), estimator._convert(logits, logits_to_probabilities)
    for place, (name, values) in enumerate(zip(estimator.target_names_, probabilities, strict=True)):
        columns |= {f"prediction_{name}": predicted[:, place], f"probability_{name}": values.max(axis=1)}
        if proba:
            classes = estimator.classes_[place]
            columns |= {f"probability_{name}_{label}": part for label, part in zip(classes, values.T, strict=True)}
    return columns


def _evaluate(estimator, X, truth, separator: str | None) -> tuple[dict, str]:
    predicted = estimator.predict(X)
    if is_regressor(estimator):
        values = regression_metrics(truth, predicted)
        return values, report(values)
    if isinstance(estimator.classes_, list):
        values = {"accuracy": estimator.score(X, truth)}
        for name, column in zip(estimator.target_names_, predicted.T, strict=True):
            values[f"accuracy_{name}"] = float(np.mean(truth[name].to_numpy() == column))
        return values, report(values)
    if not _is_multi_label(estimator):
        if isinstance(estimator.classes_[0], str):
            truth = truth.astype(str)
        values = classification_metrics(truth, predicted)
        return values, report(values, truth, predicted)
    names = list(map(str, estimator.classes_))
    sets = [_labels_of(cell, separator or ";") for cell in truth]
    unknown = sorted(set().union(*sets).difference(names))
    if unknown:
        say(f"warning: the model does not know the labels {unknown[:5]}, which are not counted")
    indicators = np.array([[int(name in labels) for name in names] for labels in sets])
    values = classification_metrics(indicators, predicted)
    return values, report(values, indicators, predicted, names)


def _write(table: pd.DataFrame, out: Path | None) -> None:
    if out is None:
        typer.echo(table.to_csv(index=False), nl=False)
        return
    write_table(table, out)
    say(f"{len(table)} rows written to {out}")
