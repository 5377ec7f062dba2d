"""Reading and writing of tables: csv, csv.gz, parquet, jsonl and txt."""

import os
import tempfile
from pathlib import Path

import pandas as pd

# An empty cell is missing; words such as "None" and "NA" are texts.
_CSV = {"keep_default_na": False, "na_values": [""]}
_READERS = {
    ".csv": lambda path: pd.read_csv(path, **_CSV),
    ".csv.gz": lambda path: pd.read_csv(path, **_CSV),
    ".tsv": lambda path: pd.read_csv(path, sep="\t", **_CSV),
    ".jsonl": lambda path: pd.read_json(path, lines=True, convert_dates=False),
    ".parquet": pd.read_parquet,
    ".txt": lambda path: pd.DataFrame({"text": path.read_text(encoding="utf-8-sig").splitlines()}),
}
_WRITERS = {
    ".csv": lambda table, path: table.to_csv(path, index=False),
    ".csv.gz": lambda table, path: table.to_csv(path, index=False, compression="gzip"),
    ".tsv": lambda table, path: table.to_csv(path, index=False, sep="\t"),
    ".jsonl": lambda table, path: table.to_json(path, orient="records", lines=True, force_ascii=False),
    ".parquet": lambda table, path: table.to_parquet(path, index=False),
}


def _kind(path: Path, kinds) -> str:
    for kind in kinds:
        if path.name.lower().endswith(kind):
            return kind
    raise ValueError(f"{str(path)!r} has an unknown file type; use one of {', '.join(kinds)}.")


def read_table(path) -> pd.DataFrame:
    """Read a table; each line of a txt file is a row of the column "text".

    Raises
    ------
    ValueError
        If the type of the file is unknown, the file cannot be parsed or has no rows.
    OSError
        If the file cannot be read.
    """
    path = Path(path).expanduser()
    reader = _READERS[_kind(path, _READERS)]
    if not path.exists():
        raise FileNotFoundError(f"{str(path)!r} does not exist.")
    try:
        table = reader(path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(path)!r} cannot be read: it is not UTF-8 ({error}); save it as UTF-8.") from error
    except (ValueError, KeyError) as error:  # pandas' parser errors are ValueErrors
        raise ValueError(f"{str(path)!r} cannot be read as {_kind(path, _READERS)[1:]}: {error}") from error
    if table.empty:
        raise ValueError(f"{str(path)!r} has no rows.")
    return table


def check_output(path) -> None:
    """Raise if a table cannot be written to `path`, before anything is computed."""
    _kind(Path(path), _WRITERS)
    check_file(path)


def check_file(path) -> None:
    """Raise if no file can be written to `path`, before anything is computed."""
    path = Path(path).expanduser()
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ValueError(f"{str(path)!r} cannot be written: its folder does not exist, or it is a folder.")


def check_folder(path) -> None:
    """Raise if `path` cannot be the folder of a model, before anything is computed."""
    path = Path(path).expanduser()
    if path.exists() and not path.is_dir():
        raise ValueError(f"{str(path)!r} is a file; give the name of a folder for the model.")


def write_table(table: pd.DataFrame, path) -> None:
    """Write a table; the file is replaced in one step, so that it is never incomplete."""
    path = Path(path).expanduser().absolute()
    kind = _kind(path, _WRITERS)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=kind)
    os.close(descriptor)
    temporary = Path(name)
    try:
        _WRITERS[kind](table, temporary)
        temporary.chmod(path.stat().st_mode if path.exists() else 0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def take_columns(table: pd.DataFrame, names: list[str], source) -> pd.DataFrame:
    """Return the columns of these names.

    Raises
    ------
    ValueError
        If a name is not a column; the message lists the columns.
    """
    for name in names:
        if name not in table.columns:
            shown = ", ".join(map(str, list(table.columns)[:20]))
            raise ValueError(f"{str(source)!r} has no column {name!r}; its columns are: {shown}.")
    return table.loc[:, list(names)]
