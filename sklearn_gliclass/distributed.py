"""Prediction over data that is larger than memory: in the workers of dask, Ray and Spark, and over Parquet files.

A :class:`BatchPredictor` maps a pandas frame to its predictions. The engines have calls of their own that apply such a
function to the parts of a frame; what they need from it are the weights, which each process reads once, and the types
of the columns. The extra ``distributed`` installs dask, Ray, Spark and pyarrow.
"""

import functools
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from joblib.parallel import get_active_backend
from tqdm.auto import tqdm

from .estimator_folder import load_estimator
from .model.locks import ForkSafeLock
from .optional_dependencies import import_optional
from .text_checks import show_rows

__all__ = ["BatchPredictor", "predict_parquet"]

METHODS = ("predict", "predict_proba", "predict_labels", "decision_function", "transform")
ROWS_AT_ONCE = 50_000  # of a Parquet file that are in memory
_TEMPORARY = "writing-"
_lock = ForkSafeLock()


class BatchPredictor:
    """Function that appends predictions to a pandas frame, for the calls of dask, Ray and Spark.

    It holds the name of the checkpoint and not the weights, so that little is sent to the workers. Each process loads
    the checkpoint at its first batch, and all further ones use the same estimator.

    Parameters
    ----------
    source : str or Path
        Checkpoint folder of ``save_pretrained`` that all workers can read, or a name on the Hugging Face hub.
    text : str or list of str, optional
        Name of the column with the texts; for an estimator that was fitted on a table, names of its columns. If None,
        the columns that the estimator was fitted on, or "text".
    method : {"predict", "predict_proba", "predict_labels", "decision_function", "transform"}, default="predict"
        Method of the estimator that is called.
    keep : list of str, optional
        Columns of the frame that are kept beside the predictions. If None, all.
    labels : sequence of str, optional
        Labels of a zero-shot classifier, for checkpoints without labels of their own.
    **hyperparameters
        Hyperparameters that override the stored ones, such as ``max_batch_tokens`` or ``device``.

    See Also
    --------
    predict_parquet : Predict a folder of Parquet files.

    Notes
    -----
    The columns of the predictions have the name of the method, or for results with several columns ``method_name``
    with the name of the class or output, or for embeddings the number of the column. Missing texts raise an error.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> from sklearn_gliclass import GLiClassClassifier
    >>> from sklearn_gliclass.distributed import BatchPredictor
    >>> folder = tempfile.mkdtemp()
    >>> GLiClassClassifier().fit(None, ["sports", "politics"]).save_pretrained(folder)
    >>> predictor = BatchPredictor(folder)
    >>> predictor(pd.DataFrame({"text": ["The match ended in a draw"]}))
                            text predict
    0  The match ended in a draw  sports

    On the partitions of a dask frame: ``frame.map_partitions(predictor, meta=predictor.meta(frame))``. In two actors of
    Ray: ``dataset.map_batches(BatchPredictor, fn_constructor_args=[folder], batch_format="pandas",
    compute=ray.data.ActorPoolStrategy(size=2))``. In Spark: ``frame.mapInPandas(predictor.map,
    predictor.spark_schema(frame))``.
    """

    def __init__(self, source, text=None, *, method="predict", keep=None, labels=None, **hyperparameters):
        if method not in METHODS:
            raise ValueError(f"method={method!r} is not supported; choose from {', '.join(map(repr, METHODS))}.")
        self.source = str(source)
        self.text = text
        self.method = method
        self.keep = keep
        self.labels = labels
        self.hyperparameters = hyperparameters

    @property
    def estimator(self):
        """The estimator, which a process loads once."""
        options = {} if self.labels is None else {"labels": tuple(self.labels)}
        with _lock.hold():
            return _load(self.source, tuple(sorted({**options, **self.hyperparameters}.items())))

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return a frame with the kept columns and the predictions; an empty frame needs no prediction.

        Parameters
        ----------
        frame : DataFrame
            The rows.

        Returns
        -------
        DataFrame
            The same rows.
        """
        self._check_columns(frame)
        predicted = self._empty if len(frame) == 0 else self._predict(self._input(frame))
        kept = frame if self.keep is None else frame[list(self.keep)]
        taken = sorted(set(kept.columns) & set(predicted.columns))
        if taken:
            raise ValueError(
                f"The frame has columns with the names of the predictions, {taken!r}; rename them, or leave them out "
                "of keep."
            )
        predicted.index = kept.index
        return pd.concat([kept, predicted], axis=1)

    def map(self, frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """Yield the result of each frame, for Spark's ``mapInPandas``.

        Parameters
        ----------
        frames : iterable of DataFrame
            Batches of rows.

        Yields
        ------
        DataFrame
            The rows with their predictions.
        """
        yield from map(self, frames)

    def meta(self, frame) -> pd.DataFrame:
        """Return an empty frame with the columns and types of the results, for dask's argument `meta`.

        Parameters
        ----------
        frame : dask.dataframe.DataFrame or pandas.DataFrame
            Frame with the columns of the data.

        Returns
        -------
        DataFrame
            The empty frame.
        """
        return self(getattr(frame, "_meta", frame).iloc[:0])

    def spark_schema(self, frame):
        """Return the schema of the results, for Spark's ``mapInPandas``.

        Parameters
        ----------
        frame : pyspark.sql.DataFrame
            Frame with the columns of the data.

        Returns
        -------
        pyspark.sql.types.StructType
            The schema.
        """
        types = import_optional("pyspark.sql.types", "distributed", "BatchPredictor.spark_schema")
        kept = [field for field in frame.schema.fields if self.keep is None or field.name in self.keep]
        predicted = self.meta(pd.DataFrame(columns=frame.columns)).columns[len(kept) :]
        by_kind = {"f": types.DoubleType(), "i": types.LongType(), "b": types.BooleanType()}
        new = []
        for name in predicted:
            kind = types.StringType() if self.method != "predict_labels" else types.ArrayType(types.StringType())
            new.append(types.StructField(name, by_kind.get(self._empty[name].dtype.kind, kind)))
        return types.StructType([*kept, *new])

    # -- columns ---------------------------------------------------------------------------------------------

    @property
    def _columns(self) -> list:
        """Names of the columns that the estimator reads."""
        if self.text is not None:
            return [self.text] if isinstance(self.text, str) else list(self.text)
        return list(getattr(self.estimator, "feature_names_in_", ["text"]))

    def _check_columns(self, frame) -> None:
        missing = [name for name in self._columns if name not in frame.columns]
        if missing:
            raise ValueError(
                f"The frame has no column(s) {missing!r}; it has {list(map(str, frame.columns))[:10]!r}. Set "
                "text to the name of the column with the texts."
            )

    def _input(self, frame):
        """Return the texts, or the table for an estimator that was fitted on one."""
        columns, reads_table = self._columns, hasattr(self.estimator, "n_features_in_")
        if reads_table or len(columns) > 1:
            return frame[columns]
        texts = frame[columns[0]]
        missing = np.flatnonzero(texts.isna())
        if len(missing):
            raise ValueError(
                f"The column {columns[0]!r} has {len(missing)} missing text(s), first at row(s) {show_rows(missing)} "
                "of this part; remove or fill them before the prediction."
            )
        return texts.astype(object)

    @functools.cached_property
    def _empty(self) -> pd.DataFrame:
        """Predictions of no rows, with the types of those of any row."""
        row = pd.DataFrame([["text"] * len(self._columns)], columns=self._columns)
        return self._predict(self._input(row)).iloc[:0]

    def _predict(self, X) -> pd.DataFrame:
        values = getattr(self.estimator, self.method)(X)
        if np.ndim(values) == 2 and isinstance(values, np.ndarray):
            names = [f"{self.method}_{name}" for name in self._output_names(values.shape[1])]
            return pd.DataFrame(values, columns=names)
        # As a list, strings get the same type in every frame, and lists of labels stay lists.
        is_number = isinstance(values, np.ndarray) and values.dtype.kind in "iufb"
        return pd.DataFrame({self.method: values if is_number else list(values)})

    def _output_names(self, n_columns: int) -> Iterable:
        names = getattr(self.estimator, "classes_", getattr(self.estimator, "target_names_", None))
        return range(n_columns) if self.method == "transform" or names is None else list(names)

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "_empty"}


@functools.lru_cache(maxsize=4)
def _load(source: str, options: tuple):
    return load_estimator(source, **dict(options))


def predict_parquet(predictor, source, target, *, n_jobs=None, progress=True) -> list[Path]:
    """Predict a folder of Parquet files, one task for each, and write a file of the same name for each.

    Files that exist in `target` already are skipped, so that a call after an interruption or an error continues where
    it has ended. A file is written under another name and renamed when it is complete.

    Parameters
    ----------
    predictor : BatchPredictor
        What is predicted, and from which columns.
    source : str or Path
        Folder of the files ``*.parquet``, which all workers can read.
    target : str or Path
        Folder of the results, which all workers can write to; it is created if it does not exist.
    n_jobs : int, optional
        Number of workers, as in joblib: inside of ``joblib.parallel_config``, those of dask or Ray.
    progress : bool, default=True
        Whether to show a progress bar, of files.

    Returns
    -------
    list of Path
        The files that were written by this call.

    Raises
    ------
    ValueError
        If there are no files, or both folders are the same.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> from sklearn_gliclass import GLiClassClassifier
    >>> from sklearn_gliclass.distributed import BatchPredictor, predict_parquet
    >>> model, source, target = (tempfile.mkdtemp() for _ in range(3))
    >>> GLiClassClassifier().fit(None, ["sports", "politics"]).save_pretrained(model)
    >>> pd.DataFrame({"text": ["a goal", "a vote"]}).to_parquet(f"{source}/part-0.parquet")
    >>> len(predict_parquet(BatchPredictor(model), source, target, progress=False))
    1
    >>> predict_parquet(BatchPredictor(model), source, target, progress=False)     # there already
    []
    """
    import_optional("pyarrow.parquet", "distributed", "predict_parquet")
    source, target = Path(source).expanduser().resolve(), Path(target).expanduser().resolve()
    paths = sorted(source.glob("*.parquet"))
    if not paths or source == target:
        reason = "is the folder of the results too" if source == target else "has no files *.parquet"
        raise ValueError(f"source={str(source)!r} {reason}; give the folder with the rows, and another as target.")
    target.mkdir(parents=True, exist_ok=True)
    todo = [(path, target / path.name) for path in paths if not (target / path.name).exists()]
    backend: Any = get_active_backend()[0]  # joblib declares no type
    kind = "generator_unordered" if backend.supports_return_generator and todo else "list"
    tasks = (joblib.delayed(_predict_file)(predictor, *pair) for pair in todo)
    done = joblib.Parallel(n_jobs=n_jobs, return_as=kind)(tasks)
    written = []
    options = {"total": len(paths), "initial": len(paths) - len(todo), "unit": "file", "disable": not progress}
    with tqdm(desc="predict", **options) as bar:
        for path in done:
            written.append(path)
            bar.update()
    return sorted(written)


def _predict_file(predictor: BatchPredictor, source: Path, target: Path) -> Path:
    parquet = import_optional("pyarrow.parquet", "distributed", "predict_parquet")
    arrow = import_optional("pyarrow", "distributed", "predict_parquet")
    temporary = target.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
    file, writer = parquet.ParquetFile(source), None
    empty = file.schema_arrow.empty_table().to_pandas()
    schema = arrow.Schema.from_pandas(predictor(empty), preserve_index=False)
    try:
        for batch in file.iter_batches(ROWS_AT_ONCE):
            table = arrow.Table.from_pandas(predictor(batch.to_pandas()), preserve_index=False)
            writer = writer or parquet.ParquetWriter(temporary, table.schema)
            writer.write_table(table.cast(writer.schema))
        writer = writer or parquet.ParquetWriter(temporary, schema)
        writer.close()
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target
