"""Prediction over big data and searches, in real workers of dask, Ray and Spark on this machine."""

import os
import shutil
import signal
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
from joblib.parallel import get_active_backend
from sklearn.model_selection import GridSearchCV

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor
from sklearn_gliclass.distributed import BatchPredictor, predict_parquet
from sklearn_gliclass.testing import TINY

TEXTS = [f"{word} {row}" for row in range(20) for word in ("goal", "vote")]
CLASSES = ["sports", "politics"] * 20
FRAME = pd.DataFrame({"id": range(40), "text": TEXTS})
OPTIONS = dict(TINY, random_state=0, max_epochs=1)


@pytest.fixture(scope="module")
def classifier():
    return GLiClassClassifier(**OPTIONS).fit(TEXTS, CLASSES)


@pytest.fixture(scope="module")
def folder(classifier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    classifier.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def client():
    """Client of two worker processes of dask, on the loopback."""
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "host": "127.0.0.1"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


def save_parts(folder, n_parts=4):
    folder.mkdir()
    for number, part in enumerate(np.array_split(np.arange(len(FRAME)), n_parts)):
        FRAME.iloc[part].to_parquet(folder / f"part-{number}.parquet")
    return folder


def read_parts(folder):
    return pd.concat([pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))], ignore_index=True)


# -- one process ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function", "transform"])
def test_predictor_appends_the_results_of_the_method(classifier, folder, method):
    result = BatchPredictor(folder, method=method, keep=["id"])(FRAME.iloc[5:9])
    expected = getattr(classifier, method)(TEXTS[5:9])
    np.testing.assert_array_equal(result.iloc[:, 1:].to_numpy(dtype=expected.dtype), expected.reshape(4, -1))
    assert result.index.tolist() == FRAME.index[5:9].tolist()
    assert result.columns[0] == "id"


def test_predictor_names_columns_by_class_and_output(folder, tmp_path):
    assert BatchPredictor(folder, method="predict_proba")(FRAME).columns[2:].tolist() == [
        "predict_proba_politics",
        "predict_proba_sports",
    ]
    table = pd.DataFrame({"title": TEXTS, "size": range(40)})
    values = pd.DataFrame({"price": np.arange(40.0), "mood": 1.0})
    reg = GLiClassRegressor(**OPTIONS, shrinkage=1.0).fit(table, values)
    reg.save_pretrained(tmp_path)
    result = BatchPredictor(tmp_path)(table.assign(more=1))
    assert result.columns.tolist() == ["title", "size", "more", "predict_price", "predict_mood"]
    np.testing.assert_allclose(result[["predict_price", "predict_mood"]], reg.predict(table))


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_labels"])
def test_empty_frames_have_the_types_of_others(folder, method):
    predictor = BatchPredictor(folder, method=method)
    assert predictor(FRAME.iloc[:0]).dtypes.tolist() == predictor(FRAME).dtypes.tolist()


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (FRAME.rename(columns={"text": "body"}), {}, r"no column\(s\) \['text'\]; it has \['id', 'body'\]"),
        (FRAME.assign(predict=1), {}, "rename them"),
        (FRAME.assign(text=[None, *TEXTS[1:]]), {}, r"1 missing text\(s\), first at row\(s\) 0"),
        (FRAME, {"method": "fit"}, "method='fit' is not supported"),
    ],
)
def test_wrong_frames_raise(folder, frame, options, message):
    with pytest.raises(ValueError, match=message):
        BatchPredictor(folder, **options)(frame)


def test_parquet_run_continues_where_it_has_ended(classifier, folder, tmp_path):
    source, target = save_parts(tmp_path / "in"), tmp_path / "out"
    broken = source / "part-2.parquet"
    content = broken.read_bytes()
    FRAME.assign(text=None).to_parquet(broken)
    with pytest.raises(ValueError, match="missing text"):
        predict_parquet(BatchPredictor(folder), source, target, progress=False)
    assert sorted(path.name for path in target.iterdir()) == ["part-0.parquet", "part-1.parquet"]
    broken.write_bytes(content)
    written = predict_parquet(BatchPredictor(folder), source, target, progress=False)
    assert [path.name for path in written] == ["part-2.parquet", "part-3.parquet"]
    assert read_parts(target)["predict"].tolist() == classifier.predict(TEXTS).tolist()


def test_parquet_run_shows_progress(folder, tmp_path, capsys):
    predict_parquet(BatchPredictor(folder), save_parts(tmp_path / "in", 2), tmp_path / "out")
    assert "2/2" in capsys.readouterr().err


def test_parquet_run_without_files_raises(folder, tmp_path):
    with pytest.raises(ValueError, match=r"has no files \*\.parquet"):
        predict_parquet(BatchPredictor(folder), tmp_path, tmp_path / "out")


# -- dask ----------------------------------------------------------------------------------------------------


def test_dask_frame_to_fit_and_predict_raises(classifier):
    dask_frame = pytest.importorskip("dask.dataframe").from_pandas(FRAME, npartitions=2)
    for call in (lambda: classifier.predict(dask_frame["text"]), lambda: classifier.fit(dask_frame, CLASSES)):
        with pytest.raises(TypeError, match=r"pass X\.compute\(\), or .*map_partitions\(predictor, meta="):
            call()


def test_dask_partitions_give_the_predictions_of_one_process(classifier, folder, client):
    dask_frame = pytest.importorskip("dask.dataframe").from_pandas(FRAME, npartitions=5)
    predictor = BatchPredictor(folder, method="predict_proba")
    lazy = dask_frame[dask_frame["id"] >= 8].map_partitions(predictor, meta=predictor.meta(dask_frame))  # one is empty
    result = lazy.compute()
    assert result.dtypes.tolist() == lazy.dtypes.tolist()
    np.testing.assert_allclose(result.iloc[:, 2:], classifier.predict_proba(TEXTS[8:]), atol=1e-6)


def die_once(marker):
    """Kill the process of the first call."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


class MortalPredictor(BatchPredictor):
    """Predictor whose process dies in the middle of a run."""

    def __call__(self, frame):
        if len(frame) and 15 in frame["id"].tolist():
            die_once(f"{self.source}-died")
        return super().__call__(frame)


class MortalClassifier(GLiClassClassifier):
    """Classifier whose process dies in its second fit."""

    __init__ = GLiClassClassifier.__init__

    def fit(self, X, y):
        if self.lr == 3e-3:
            die_once(f"{self.cache_dir}-died")
        return super().fit(X, y)


def test_dead_worker_loses_its_task_only(classifier, folder, client, tmp_path):
    mortal = tmp_path / "model"
    shutil.copytree(folder, mortal)
    with joblib.parallel_config("dask"):
        predict_parquet(MortalPredictor(mortal), save_parts(tmp_path / "in"), tmp_path / "out", progress=False)
    assert (tmp_path / "model-died").exists()
    assert read_parts(tmp_path / "out")["predict"].tolist() == classifier.predict(TEXTS).tolist()


def search(kind=GLiClassClassifier, **options):
    grid = GridSearchCV(kind(**{**OPTIONS, **options}), {"lr": [2e-3, 3e-3, 4e-3]}, cv=2, error_score="raise")
    grid.fit(np.array(TEXTS, dtype=object), CLASSES)
    return grid.cv_results_["mean_test_score"], grid.best_estimator_.decision_function(TEXTS)


@pytest.mark.parametrize(
    "kind", [GLiClassClassifier, pytest.param(MortalClassifier, marks=pytest.mark.full, id="a worker dies")]
)
def test_dask_search_equals_serial(client, tmp_path, kind):
    with joblib.parallel_config("dask"):
        scores, logits = search(kind, cache_dir=str(tmp_path / "cache"))
    assert (tmp_path / "cache-died").exists() == (kind is MortalClassifier)
    expected_scores, expected = search()
    np.testing.assert_array_equal(scores, expected_scores)
    np.testing.assert_allclose(logits, expected, atol=1e-6)


def thread_count(_):
    import torch

    return torch.get_num_threads()


def test_workers_of_dask_have_one_thread(client):
    assert set(client.run(thread_count, None).values()) == {1}


# -- Ray and Spark: large packages, which `make test-full` installs ----------------------------------------------


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.mark.full
def test_ray_search_and_predictions_equal_serial(ray, classifier, folder):
    from ray.util.joblib import register_ray

    register_ray()
    with joblib.parallel_config(backend="ray", n_jobs=2):
        assert "Ray" in type(get_active_backend()[0]).__name__
        np.testing.assert_array_equal(search()[0], search()[0])
    data = ray.data.from_pandas(FRAME).repartition(4)
    with pytest.raises(TypeError, match=r"pass X\.to_pandas\(\), or .*map_batches"):
        classifier.predict(data)
    predicted = data.map_batches(
        BatchPredictor, fn_constructor_args=[folder], batch_format="pandas", batch_size=10, concurrency=2
    )
    result = predicted.to_pandas().sort_values("id")
    assert result["predict"].tolist() == classifier.predict(TEXTS).tolist()


@pytest.mark.full
@pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")
def test_spark_predictions_equal_serial(classifier, folder, monkeypatch):
    sql = pytest.importorskip("pyspark.sql")
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    options = {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1", "spark.ui.enabled": "false"}
    builder = sql.SparkSession.builder.master("local[2]")
    for name, value in options.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    try:
        frame = spark.createDataFrame(FRAME).repartition(2)
        with pytest.raises(TypeError, match=r"pass X\.toPandas\(\), or .*mapInPandas"):
            classifier.predict(frame)
        for method in ("predict", "predict_proba", "predict_labels"):
            predictor = BatchPredictor(folder, method=method)
            result = frame.mapInPandas(predictor.map, predictor.spark_schema(frame)).toPandas().sort_values("id")
            expected = predictor(FRAME)
            assert result.columns.tolist() == expected.columns.tolist()
            if method == "predict_proba":
                np.testing.assert_allclose(result.iloc[:, 2:], expected.iloc[:, 2:], atol=1e-6)
            else:  # Spark returns arrays in place of lists
                assert [*map(list, result[method])] == [*map(list, expected[method])]
    finally:
        spark.stop()
