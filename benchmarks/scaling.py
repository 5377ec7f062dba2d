"""Predictions and training in several processes: `python benchmarks/scaling.py [--quick]`.

Predictions of distinct short texts, joined from halves of the texts of banking77 and clinc150: by the plain estimator,
by `map_partitions` of dask, and by `predict_parquet`, with one and two workers of one thread each. Before each
measurement the workers have loaded the checkpoint. "CPU" is the processor time of all processes, and the overhead is
that over the plain estimator. The tiny encoder shows what the engines themselves need.

Training: one epoch of fine-tuning MiniLM in one process, and in two that torchrun starts, with the same batches of 32
texts.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common

WIDTHS = (8, 26, 9, 10, 10, 12, 14)
TITLES = ("encoder", "engine", "texts", "wall, s", "CPU, s", "CPU µs/text", "over plain")
N_PARTS = 8
N_LABELS = 20

TRAIN = """
import json, sys, time
import pandas as pd
import torch
from sklearn_gliclass import GLiClassClassifier

torch.set_num_threads(1)
frame = pd.read_csv(sys.argv[1])
options = {"random_state": 0, "batch_size": 32, "device": "cpu", "scorer_type": "mlp"}
GLiClassClassifier(**options, max_epochs=0).fit(frame["text"], frame["label"])
clf = GLiClassClassifier(**options, max_epochs=1)
wall, cpu = time.perf_counter(), time.process_time()
clf.fit(frame["text"], frame["label"])
print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]), flush=True)
"""


def short_texts(options, n: int) -> list[str]:
    """Return `n` distinct texts, each the first half of one text and the second half of another."""
    words = [text.split() for name in ("banking77", "clinc150") for text in common.read(options, name, "train").text]
    total = len(words)

    def join(row):
        first, second = words[row % total], words[(row % total + 1 + row // total) % total]
        return " ".join([*first[: len(first) // 2], *second[len(second) // 2 :]])

    return [join(row) for row in range(n)]


def cpu_seconds() -> float:
    """Return the processor time of this process and of all that it has started and are running."""
    import psutil

    this = psutil.Process()
    times = [process.cpu_times() for process in [this, *this.children(recursive=True)]]
    return sum(time.user + time.system for time in times)


def measure(call) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), cpu_seconds()
    call()
    return time.perf_counter() - wall, cpu_seconds() - cpu


# -- predictions -------------------------------------------------------------------------------------------------


def save_parts(frame, folder: Path) -> Path:
    folder.mkdir()
    size = -(-len(frame) // N_PARTS)
    for number in range(N_PARTS):
        frame.iloc[number * size : (number + 1) * size].to_parquet(folder / f"part-{number}.parquet")
    return folder


def measure_plain(predictor, frame, folder):
    predictor(frame.iloc[:64])
    return measure(lambda: predictor(frame))


def measure_dask(n_workers: int):
    def run(predictor, frame, folder):
        import dask.dataframe as dd
        from distributed import Client, LocalCluster

        options = {"threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
        with LocalCluster(n_workers=n_workers, **options) as cluster, Client(cluster) as client:
            client.run(predictor, frame.iloc[:64])
            parts = dd.from_pandas(frame, npartitions=N_PARTS)
            return measure(parts.map_partitions(predictor, meta=predictor.meta(parts)).compute)

    return run


def load_in_worker(predictor, frame, folder: Path, n_jobs: int) -> None:
    """Load the checkpoint, and keep the worker until all others have loaded it."""
    predictor(frame)
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < n_jobs:
        time.sleep(0.1)


def measure_parquet(n_jobs: int):
    def run(predictor, frame, folder):
        import joblib
        from joblib.externals.loky import get_reusable_executor

        from sklearn_gliclass.distributed import predict_parquet

        source, loaded = save_parts(frame, folder / "in"), folder / "loaded"
        loaded.mkdir()
        load = joblib.delayed(load_in_worker)
        joblib.Parallel(n_jobs=n_jobs)(load(predictor, frame.iloc[:64], loaded, n_jobs) for _ in range(n_jobs))
        result = measure(lambda: predict_parquet(predictor, source, folder / "out", n_jobs=n_jobs, progress=False))
        get_reusable_executor().shutdown(wait=True)
        return result

    return run


ENGINES = {
    "plain": measure_plain,
    "predict_parquet, 1 process": measure_parquet(1),
    "predict_parquet, 2 workers": measure_parquet(2),
    "dask, 1 worker": measure_dask(1),
    "dask, 2 workers": measure_dask(2),
}


def predictions(options, encoder: str, hyperparameters: dict, n: int) -> None:
    import pandas as pd

    from sklearn_gliclass import GLiClassClassifier
    from sklearn_gliclass.distributed import BatchPredictor

    frame = pd.DataFrame({"text": short_texts(options, n)})
    labels = common.label_names(options, "banking77", N_LABELS)
    with tempfile.TemporaryDirectory() as folder:
        clf = GLiClassClassifier(**{"device": "cpu", "random_state": 0, "max_epochs": 0, **hyperparameters})
        clf.fit(labels, labels).save_pretrained(Path(folder) / "model")
        predictor, plain = BatchPredictor(Path(folder) / "model"), None
        for name, run in ENGINES.items():
            work = Path(folder) / name
            work.mkdir()
            wall, cpu = run(predictor, frame, work)
            plain = plain or cpu
            cells = [encoder, name, n, f"{wall:.1f}", f"{cpu:.1f}", f"{1e6 * cpu / n:.0f}", f"{cpu / plain - 1:+.1%}"]
            common.row(cells, WIDTHS)


# -- training ----------------------------------------------------------------------------------------------------


def train(frame, n_processes: int) -> tuple[float, list[float]]:
    """Return the wall-clock seconds of a fit, and the processor time of each process."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(n_processes), "--master-addr", "127.0.0.1"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(common.ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    with tempfile.TemporaryDirectory() as folder:
        frame.to_csv(f"{folder}/rows.csv", index=False)
        Path(folder, "train.py").write_text(TRAIN)
        command = [sys.executable, *(launcher if n_processes > 1 else []), "train.py", "rows.csv"]
        done = subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    return max(line[0] for line in lines), [line[1] for line in lines]


def training(options, n_short: int, n_long: int) -> None:
    import pandas as pd

    widths = (20, 6, 9, 9, 24, 18)
    common.title(("texts", "rows", "processes", "wall, s", "CPU of each process, s", "speed-up by CPU"), widths)
    short = common.read(options, "banking77", "train")
    reviews = common.mixed_texts(options, n_long, 100, 200)
    frames = {
        "banking77": short.sample(min(n_short, len(short)), random_state=0),
        "100 to 200 words": pd.DataFrame({"text": reviews, "label": ["good", "bad"] * (n_long // 2)}),
    }
    for name, frame in frames.items():
        alone = None
        for n_processes in (1, 2):
            wall, cpu = train(frame, n_processes)
            alone = alone or cpu[0]
            seconds = ", ".join(f"{value:.1f}" for value in cpu)
            common.row((name, len(frame), n_processes, f"{wall:.1f}", seconds, f"{alone / max(cpu):.2f}"), widths)


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    options.threads = 1
    common.header(options)
    import torch

    from sklearn_gliclass.testing import TINY

    torch.set_num_threads(1)

    tiny = {name: value for name, value in TINY.items() if name != "max_epochs"}
    common.title(TITLES, WIDTHS)
    predictions(options, "tiny", tiny, 20_000 if options.quick else 200_000)
    predictions(options, "MiniLM", {}, 2_000 if options.quick else 200_000)
    print(flush=True)
    training(options, *((128, 64) if options.quick else (1024, 256)))


if __name__ == "__main__":
    main()
