"""Text templates: format strings with column names, or functions of a row.

A format string may hold column names, the conversions ``!r`` and ``!s``, and format specifications. Attributes, items
and nested fields are not supported: templates are stored in checkpoint folders, and must not execute code.
"""

import re
import reprlib
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .cells import cell_text
from .text_checks import is_missing

MAX_WIDTH, MAX_PRECISION = 1_000, 100_000  # the precision truncates strings, so that long ones are allowed
_CONVERSIONS = {None: None, "r": repr, "s": str}
_SPECIFICATION = re.compile(
    r"(?:.?[<>=^])?[-+ ]?z?#?0?(?P<width>\d*)[,_]?(?:\.(?P<precision>\d+))?[bcdeEfFgGnosxX%]?", re.DOTALL
)
_DATE_SPECIFICATION = re.compile(
    r"(?:[^%]|%[-_0^#EO]?[A-Za-z%])+", re.DOTALL
)  # excludes widths such as glibc's "%1000000Y"


@dataclass(frozen=True)
class _Piece:
    """Literal text of a template and the field that follows it; `column` is None in the last piece."""

    literal: str
    column: int | None = None
    name: str = ""
    conversion: Callable | None = None
    specification: str = ""


def fill_template(template: str | Callable, names: Sequence[str], rows: Sequence[tuple]) -> list[str]:
    """Convert the rows of a table to texts.

    Parameters
    ----------
    template : str or callable
        A format string with column names, or a function of a dict of a row's cells.
    names : sequence of str
        Names of the columns.
    rows : sequence of tuple
        Cells; missing ones are empty in a format string.

    Returns
    -------
    list of str

    Examples
    --------
    >>> fill_template("{title} ({year})", ["title", "year"], [("Heat", 1995), ("Big", None)])
    ['Heat (1995)', 'Big ()']
    """
    if callable(template):
        return _call_template(template, names, rows)
    pieces = _parse_template(template, names)
    return ["".join(_fill_piece(piece, cells, row) for piece in pieces) for row, cells in enumerate(rows)]


def _call_template(template, names, rows) -> list[str]:
    texts = []
    for row, cells in enumerate(rows):
        try:
            text = template(dict(zip(names, cells, strict=True)))
        except Exception as error:
            # What error.add_note does, which is new in Python 3.11.
            notes = [*getattr(error, "__notes__", ()), f"text_template raised this for row {row} of X."]
            vars(error)["__notes__"] = notes
            raise
        if not isinstance(text, str):
            raise TypeError(f"text_template must return a str, got {type(text).__name__} for row {row}.")
        texts.append(str(text))
    return texts


def _parse_template(template: str, names: Sequence[str]) -> list[_Piece]:
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(
            f"text_template={template!r} is not a valid format string: {error}. Write literal braces twice."
        ) from error
    fields = [field for _, field, _, _ in parsed if field is not None]
    if not fields:
        raise ValueError(
            f"text_template={template!r} names no column; write column names in braces: {_example(names)}."
        )
    _check_fields(fields, names)
    return [_parse_piece(template, names, *part) for part in parsed]


def _check_fields(fields: Sequence[str], names: Sequence[str]) -> None:
    unknown = sorted({field for field in fields if field not in names})
    positional = [field for field in unknown if not field or field.isdigit()]
    if positional:
        raise ValueError(
            f"text_template has the positional field {{{positional[0]}}}; name the column in the braces: "
            f"{_example(names)}."
        )
    access = [field for field in unknown if re.split(r"[.\[]", field)[0] in names]
    if access:
        raise ValueError(
            f"text_template has the field {{{access[0]}}}: attributes and items are not supported, only columns. Use a "
            "function as text_template, or a format specification such as {day:%Y}."
        )
    if unknown:
        raise ValueError(f"text_template names the column(s) {unknown}, which X does not have; X has {list(names)}.")


def _example(names: Sequence[str]) -> str:
    return f'"{{{names[0]}}}"'


def _parse_piece(template, names, literal, field, specification, conversion) -> _Piece:
    if field is None:
        return _Piece(literal)
    if conversion not in _CONVERSIONS:
        raise ValueError(f"text_template has the conversion !{conversion} in {{{field}}}; choose !r or !s.")
    if not _is_specification(specification):
        raise ValueError(
            f"text_template has the format specification {specification!r} for the column {field!r}; choose one like "
            f'".2f", with a width of at most {MAX_WIDTH} characters, or for dates one like "%Y-%m-%d".'
        )
    return _Piece(literal, list(names).index(field), field, _CONVERSIONS[conversion], specification)


def _is_specification(specification: str) -> bool:
    found = _SPECIFICATION.fullmatch(specification)
    if found is None:
        return "%" in specification and "{" not in specification and bool(_DATE_SPECIFICATION.fullmatch(specification))
    width, precision = (int((found[part] or "0")[:10]) for part in ("width", "precision"))
    return width <= MAX_WIDTH and precision <= MAX_PRECISION


def _fill_piece(piece: _Piece, cells: tuple, row: int) -> str:
    if piece.column is None or is_missing(cells[piece.column]):
        return piece.literal
    value = cells[piece.column]
    if piece.conversion is not None:
        value = piece.conversion(value)
    if not piece.specification:
        return piece.literal + cell_text(value, row, piece.name)
    try:
        return piece.literal + format(value, piece.specification)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"text_template cannot format {reprlib.repr(value)} with {piece.specification!r}, in the column "
            f"{piece.name!r} at row {row}: {error}."
        ) from error
