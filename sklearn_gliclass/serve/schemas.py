"""Requests and responses of the server, as pydantic models that give the OpenAPI description."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, create_model

from ..inputs import read_texts
from .limits import Limits

Cell = str | int | float | bool | None
Value = str | int | float | bool | None


class Predictions(BaseModel):
    """Predictions of the texts of a request."""

    predictions: list[Value | list[Value]] = Field(
        description="One entry per text: the class, or the classifier's `unknown_label` where no class fits; for a "
        "multi-label classifier, the list of its labels; for a regressor, the value, or the list of its values."
    )


class Probabilities(BaseModel):
    """Probabilities of the texts of a request."""

    labels: list[Value | list[Value]] = Field(description="The classes, in the order of the columns.")
    probabilities: list[list[float | list[float]]] = Field(
        description="One row per text and one column per class. The rows of a single-label classifier sum to 1."
    )


class LabelledPredictions(Probabilities):
    """Probabilities and predictions for the labels of a request."""

    predictions: list[Value | list[Value]] = Field(
        description="One entry per text: the most probable label, or the classifier's `unknown_label` where none fits; "
        "for a multi-label classifier, the list of labels whose probability is at least the threshold."
    )


class Labels(BaseModel):
    """Labels of the served model."""

    labels: list[Value | list[Value]] = Field(description="The classes of the model.")
    multi_label: bool = Field(description="Whether each label is a decision of its own.")


class Health(BaseModel):
    """State of the server."""

    status: str = Field(description='"ok", or "stopping" (with status 503) while the server shuts down.')
    estimator: str = Field(description="Class of the served estimator.")
    version: str = Field(description="Version of sklearn_gliclass.")
    queued: int = Field(description="Texts (and labels) that wait in the queue.")


class Problem(BaseModel):
    """Reason of an error."""

    detail: str = Field(description="What is wrong with the request, what is allowed, and what to do.")


def reads_rows(estimator) -> bool:
    """Return whether the estimator was fitted on a table, whose rows are the inputs of requests."""
    reader = estimator._text_reader
    return reader.n_columns is not None and not reader.is_plain


def request_models(estimator, limits: Limits) -> tuple[type[BaseModel], type[BaseModel]]:
    """Build the models of a request, and of a request with labels, for the inputs of an estimator."""
    if reads_rows(estimator):
        columns = estimator._text_reader.columns
        names = f"{estimator._text_reader.n_columns} cells" if columns is None else f"the columns {list(columns)}"
        name, item = "rows", list[Cell] if columns is None else dict[str, Cell]
        note = f"Rows of the table, each with {names}; a missing cell is null."
    else:
        name, item = "texts", Annotated[str, StringConstraints(max_length=limits.max_characters)]
        note = (
            "The texts; what exceeds the model's maximum number of tokens is truncated, or read in further windows, as "
            "the estimator's `long_texts` says."
        )
    field = Field(min_length=1, max_length=limits.max_texts, description=note)
    inputs: dict[str, Any] = {"__config__": ConfigDict(extra="forbid"), name: (Annotated[list[item], field], ...)}
    label = Annotated[str, StringConstraints(min_length=1, pattern=r"\S", max_length=limits.max_label_characters)]
    note = "Labels that the model should choose from, in plain words; at least two different ones."
    labels: Any = Annotated[list[label], Field(min_length=2, max_length=limits.max_labels, description=note)]
    request = create_model("Request", **inputs)
    labelled = create_model("LabelsRequest", **inputs, labels=(labels, ...))
    return request, labelled


def read_inputs(request: Any, estimator, limits: Limits) -> list:
    """Return the checked inputs of a request, which can be joined with those of other requests.

    Raises
    ------
    ValueError, TypeError
        If the estimator cannot read them.
    """
    if not reads_rows(estimator):
        inputs = request.texts
        read_texts(inputs, estimator)
        return inputs
    inputs = [_complete(row, number, estimator._text_reader) for number, row in enumerate(request.rows)]
    for number, text in enumerate(read_texts(inputs, estimator)):
        if len(text) > limits.max_characters:
            raise ValueError(
                f"rows[{number}] has {len(text)} characters, and at most {limits.max_characters} are allowed; shorten "
                "its cells."
            )
    return inputs


def _complete(row, number: int, reader):
    """Return a row with all columns, in the order of the fit."""
    if reader.columns is None:
        if len(row) != reader.n_columns:
            raise ValueError(f"rows[{number}] has {len(row)} cells, and the model reads {reader.n_columns} columns.")
        return row
    unknown = [name[:50] for name in row if name not in reader.columns]
    if unknown:
        raise ValueError(
            f"rows[{number}] has the unknown columns {unknown[:5]}; the columns of the model are "
            f"{list(reader.columns)}."
        )
    return {name: row.get(name) for name in reader.columns}
