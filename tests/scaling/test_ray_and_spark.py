"""Searches and predictions in workers of Ray and Spark, large packages that `make test-full` installs."""

import os
import shutil
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from frames import (
    CLASSES,
    FRAME,
    TEXTS,
    MortalClassifier,
    MortalPredictor,
    RecordingClassifier,
    assert_equals_serial,
    count_encoded,
    fit_recorded,
    frozen_options,
    search,
    thread_count,
)
from joblib.parallel import get_active_backend

from sklearn_gliclass import GLiClassClassifier
from sklearn_gliclass.distributed import BatchPredictor

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def workers_environment():
    """What the workers inherit: no number of threads, and where they find the module `frames`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        yield patch


# -- Ray ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ray(workers_environment):
    """Ray with two processes, a small object store and no dashboard, on the loopback."""
    ray = pytest.importorskip("ray")
    from ray.util.joblib import register_ray

    register_ray()
    options = {"num_cpus": 2, "object_store_memory": 2**27, "_node_ip_address": "127.0.0.1"}
    ray.init(**options, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()


def map_batches(ray, predictor, folder, **options):
    """Predict in two actors; as these hold a processor each by default, no step before could run."""
    data = ray.data.from_pandas(FRAME).repartition(4)
    return data.map_batches(
        predictor,
        fn_constructor_args=[folder],
        fn_constructor_kwargs=options,
        batch_format="pandas",
        batch_size=10,
        compute=ray.data.ActorPoolStrategy(size=2),
        num_cpus=0.5,
    )


@pytest.mark.parametrize("kind", [GLiClassClassifier, MortalClassifier])
def test_ray_search_equals_serial(ray, tmp_path, kind):
    restart = {"max_restarts": 3, "max_task_retries": 3}
    with joblib.parallel_config("ray", n_jobs=2, ray_remote_args=restart):
        assert "Ray" in type(get_active_backend()[0]).__name__
        found = search(kind, cache_dir=str(tmp_path / "cache"))
    assert (tmp_path / "cache-died").exists() == (kind is MortalClassifier)
    assert_equals_serial(found)


@pytest.mark.parametrize("predictor", [BatchPredictor, MortalPredictor])
def test_ray_actors_give_the_predictions_of_one_process(ray, classifier, folder, tmp_path, predictor):
    model = shutil.copytree(folder, tmp_path / "model")
    result = map_batches(ray, predictor, model, method="predict_proba").to_pandas().sort_values("id")
    assert (tmp_path / "model-died").exists() == (predictor is MortalPredictor)
    assert result["text"].tolist() == TEXTS
    columns = [f"predict_proba_{name}" for name in classifier.classes_]
    np.testing.assert_allclose(result[columns].astype(float), classifier.predict_proba(TEXTS), atol=1e-6)


def test_workers_of_ray_encode_each_text_once(ray, folder, tmp_path):
    memory = tmp_path / "cache"
    with joblib.parallel_config("ray", n_jobs=2):
        joblib.Parallel(n_jobs=2)([joblib.delayed(fit_recorded)(folder, memory)])
        assert count_encoded(memory) == len(TEXTS)
        search(RecordingClassifier, **frozen_options(folder, memory))
    assert count_encoded(memory) == len(TEXTS)


def test_workers_of_ray_have_the_threads_of_their_processors(ray):
    with joblib.parallel_config("ray", n_jobs=2):
        assert set(joblib.Parallel()(joblib.delayed(thread_count)() for _ in range(4))) == {1}
    assert ray.get(ray.remote(num_cpus=2)(thread_count).remote()) == 2


def test_frame_of_ray_raises(ray, classifier):
    data = ray.data.from_pandas(FRAME)
    for call in (lambda: classifier.predict(data), lambda: classifier.fit(data, CLASSES)):
        with pytest.raises(TypeError, match=r"pass X\.to_pandas\(\), or .*map_batches"):
            call()


# -- Spark -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spark(workers_environment):
    """Spark with two tasks at a time, each of which may fail once, on the loopback."""
    if shutil.which("java") is None:
        pytest.skip("needs Java")
    sql = pytest.importorskip("pyspark.sql")
    workers_environment.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    workers_environment.setenv("PYSPARK_PYTHON", sys.executable)
    options = {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1", "spark.ui.enabled": "false"}
    spark = sql.SparkSession.builder.master("local[2, 2]").config(map=options).getOrCreate()
    yield spark
    spark.stop()


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_labels"])
def test_spark_predictions_equal_those_of_one_process(spark, folder, method):
    predictor, frame = BatchPredictor(folder, method=method), spark.createDataFrame(FRAME).repartition(2)
    result = frame.mapInPandas(predictor.map, predictor.spark_schema(frame)).toPandas().sort_values("id")
    expected = predictor(FRAME)
    assert result.columns.tolist() == expected.columns.tolist()
    if method == "predict_proba":
        np.testing.assert_allclose(result.iloc[:, 2:], expected.iloc[:, 2:], atol=1e-6)
    else:  # Spark returns arrays in place of lists
        assert [*map(list, result[method])] == [*map(list, expected[method])]


def test_spark_runs_the_task_of_a_dead_worker_again(spark, classifier, folder, tmp_path):
    predictor = MortalPredictor(shutil.copytree(folder, tmp_path / "model"))
    frame = spark.createDataFrame(FRAME).repartition(2)
    result = frame.mapInPandas(predictor.map, predictor.spark_schema(frame)).toPandas().sort_values("id")
    assert (tmp_path / "model-died").exists()
    assert result["predict"].tolist() == classifier.predict(TEXTS).tolist()


def count_threads(frames):
    for _ in frames:
        yield pd.DataFrame({"threads": [thread_count()]})


def test_workers_of_spark_have_one_thread(spark):
    counts = spark.createDataFrame(FRAME).repartition(2).mapInPandas(count_threads, "threads long").toPandas()
    assert set(counts["threads"]) == {1}


def test_frame_of_spark_raises(spark, classifier):
    frame = spark.createDataFrame(FRAME)
    for call in (lambda: classifier.predict(frame), lambda: classifier.fit(frame, CLASSES)):
        with pytest.raises(TypeError, match=r"pass X\.toPandas\(\), or .*mapInPandas"):
            call()
