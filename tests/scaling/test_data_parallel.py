"""Data-parallel training in two real processes, connected by gloo."""

import json

import numpy as np
import pytest
from filelock import FileLock
from fit_together import main as fits_and_failures
from fits import FITS, results
from forked import needs_fork
from processes import N_PROCESSES, read_output, start, wait

from sklearn_gliclass import __version__

pytestmark = needs_fork
# Probe and calibration stop when their loss hardly changes.
TOLERANCES = {"bfloat16": 1e-2, "probe": 1e-4, "calibrated": 2e-3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, testrun_uid, worker_id):
    """Folder with the results of all fits in two processes, which run once for all workers of pytest-xdist."""
    if worker_id == "master":
        return fit_together(tmp_path_factory.mktemp("fits"))
    folder = tmp_path_factory.getbasetemp().parent / f"fits-{testrun_uid}"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            fit_together(folder)
    return folder


def fit_together(folder):
    codes = wait(start(fits_and_failures, folder))
    assert codes == [0, 7], "\n".join(read_output(folder, rank) for rank in range(N_PROCESSES))
    return folder


@pytest.fixture(scope="module")
def messages(folder):
    """Messages of the fits that fail, by process."""
    return [json.loads((folder / f"messages-{rank}.json").read_text()) for rank in range(N_PROCESSES)]


@pytest.mark.parametrize("name", FITS)
def test_two_processes_fit_the_model_of_one(folder, name):
    alone = results(FITS[name]())
    first, second = (dict(np.load(folder / f"{name}-{rank}.npz")) for rank in range(N_PROCESSES))
    tolerance = TOLERANCES.get(name, 1e-5)
    assert set(alone) == set(first)
    for key, value in alone.items():
        np.testing.assert_array_equal(first[key], second[key], err_msg=key)
        np.testing.assert_allclose(first[key], value, rtol=tolerance, atol=tolerance, err_msg=key)


@pytest.mark.parametrize(
    ("name", "part"),
    {
        "texts": "the data: texts is one with the hash",
        "rows": "the data: number of rows is 21 on process 0 and 20 on process 1",
        "labels": "the data: labels is ['law', 'neither', 'politics', 'sports'] on process 0 and ['neither', 'pol",
        "hyperparameter": "the hyperparameter lr is 0.1 on process 0 and 0.2 on process 1",
        "version": f"the version of sklearn_gliclass is {__version__}.0 on process 0 and {__version__}.1 on process 1",
        "weights": "the fitted model: weights is",
        "n_jobs": "A fit with n_jobs inside of a group of 2 processes",
    }.items(),
)
def test_different_processes_raise_the_same_error(messages, name, part):
    assert all(message[name].startswith("ValueError") for message in messages)
    assert all(part in message[name] for message in messages), messages


@pytest.mark.parametrize(("name", "part"), [("error", "OSError: the disk is full"), ("invalid", "-0.9 instead")])
def test_error_in_one_process_ends_all(messages, name, part):
    assert part in messages[1][name]
    assert messages[0][name].startswith("ProcessFailedError: The data-parallel fit has failed on process 1 of 2: ")
    assert part in messages[0][name]


def test_fits_work_after_errors(messages):
    assert [message["after"] for message in messages] == ["no error"] * N_PROCESSES


def test_death_of_a_process_ends_the_others(messages):
    assert messages[0]["death"].startswith("ProcessFailedError: Process 0 of 2 has lost the connection")


def test_only_the_main_process_writes(folder):
    shown = [read_output(folder, rank).split("verbose fit")[1].split("end of it")[0] for rank in range(N_PROCESSES)]
    assert "fit: 100%" in shown[0]
    assert "TruncationWarning" in shown[0]
    assert shown[1].strip() == ""
    assert [(folder / f"checkpoint-{rank}").exists() for rank in range(N_PROCESSES)] == [True, False]
