"""Helpers of the speed benchmarks: data, equal models in both packages, interleaved timing, tables."""

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # import the package of this checkout
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

DATA = ROOT.parent / "shared" / "data"
CLOCKS = {"wall": time.perf_counter, "process": time.process_time}
VERSIONS = ("torch", "transformers", "tokenizers", "scikit-learn", "skorch", "gliclass")


def arguments(description: str) -> argparse.Namespace:
    """Parse the command line, which is the same for all benchmarks, and set the number of torch threads."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="smaller workloads, under two minutes")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch (default: all cores)")
    parser.add_argument("--repeats", type=int, help="timed rounds (default: 3, with --quick 1)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="'process' measures CPU time, for busy machines and 1 thread"
    )
    options = parser.parse_args()
    options.repeats = options.repeats or (1 if options.quick else 3)
    import torch

    torch.set_num_threads(options.threads)
    return options


def split_parser(description: str, name: str, sets: list[str], rows: list[int]) -> argparse.ArgumentParser:
    """Build the parser of a benchmark on splits of data sets; `name` is that of its file of results."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--sets", nargs="+", default=sets)
    parser.add_argument("--rows", nargs="+", type=int, default=rows, help="examples per class")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--csv", type=Path, default=ROOT / "benchmarks" / "results" / name, help="the results")
    return parser


def header(options) -> None:
    """Print the machine and the versions."""
    import torch

    from sklearn_gliclass.model.onednn import is_onednn_faster

    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in VERSIONS)
    print(f"{cpu_name()}, {options.threads} of {os.cpu_count()} threads, {options.clock} clock, "
          f"load {os.getloadavg()[0]:.1f}, {torch.backends.cpu.get_cpu_capability()}")  # fmt: skip
    training, inference = ("oneDNN" if is_onednn_faster(inference) else "MKL" for inference in (False, True))
    print(f"Python {platform.python_version()}, {versions}; "
          f"linear layers by {training} in training, {inference} in inference\n")  # fmt: skip


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


# -- data ------------------------------------------------------------------------------------------------------


def read(options, name: str, part: str = "test"):
    """Read a data set as a DataFrame."""
    import pandas as pd

    path = options.data / f"{name}.{part}.csv.gz"
    if not path.is_file():
        raise SystemExit(f"There is no {path}: give the folder of the data sets with --data FOLDER.")
    return pd.read_csv(path, keep_default_na=False)


def label_names(options, name: str, n: int) -> list[str]:
    """Return the first `n` classes of a data set, as words."""
    return [label.replace("_", " ") for label in sorted(read(options, name).label.unique())[:n]]


def mixed_texts(options, n: int, shortest: int = 5, longest: int = 400) -> list[str]:
    """Return beginnings of movie reviews, of random lengths in words."""
    import numpy as np

    rng = np.random.RandomState(0)
    reviews = read(options, "movie_reviews").text
    return [" ".join(reviews[i % len(reviews)].split()[: rng.randint(shortest, longest + 1)]) for i in range(n)]


# -- the same weights in both packages ---------------------------------------------------------------------------


def untrained(architecture: str, labels: list[str], **hyperparameters):
    """Build a multi-label classifier on MiniLM with random heads, with a pooling in which gliclass ignores padding."""
    import numpy as np
    import pandas as pd

    from sklearn_gliclass import GLiClassClassifier

    separate = {"tie_encoders": False} if architecture.startswith("bi-encoder") else {}
    options = {
        "architecture_type": architecture,
        "pooling_strategy": "first",
        "prompt_first": architecture != "bi-encoder",
        "projector_init": "normal",
        "normalize_features": False,
        "initializer_range": 0.05,  # logits of size 1
        "max_length": 512,
        "max_num_classes": max(2, len(labels)),
        "max_epochs": 0,
        "device": "cpu",
        "random_state": 0,
    }
    clf = GLiClassClassifier(**{**options, **separate, **hyperparameters})
    return clf.fit(labels, pd.DataFrame(np.eye(len(labels), dtype=int), columns=labels))


def reference(clf, folder: Path):
    """Copy the weights of the classifier to a model of gliclass, and return it with the tokenizer."""
    from gliclass import GLiClassModel
    from transformers import AutoTokenizer, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    clf.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["label_model_name"] = str(folder)  # from which its pipeline loads the tokenizer of the labels
    (folder / "config.json").write_text(json.dumps(config))
    return GLiClassModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


# -- arithmetic --------------------------------------------------------------------------------------------------


def encoder_flops(config, lengths, n_read: int) -> float:
    """Compute the floating point operations of a BERT on sequences of these lengths, without padding.

    The last layer computes `n_read` tokens per sequence, all others all tokens.
    """
    import numpy as np

    lengths = np.asarray(lengths, float)
    width, inner = config.hidden_size, config.intermediate_size

    def layer(queries):
        keys_and_values = 2 * lengths * 2 * width * width
        others = 2 * queries * (2 * width * width + 2 * width * inner)
        return keys_and_values + others + 2 * queries * lengths * 2 * width

    return float(((config.num_hidden_layers - 1) * layer(lengths) + layer(np.minimum(n_read, lengths))).sum())


def matrix_peaks(clock, repeats: int = 10) -> dict[str, float]:
    """Measure the GFLOP/s of a large matrix product with each of torch's two libraries."""
    import torch
    import torch.nn.functional as F

    from sklearn_gliclass.model.onednn import infer_linear

    size = 2048
    with torch.inference_mode():
        matrix = torch.ones(size, size)
        peaks = {}
        for name, function in {"MKL": F.linear, "oneDNN": infer_linear}.items():
            seconds = []
            for _ in range(repeats):
                start = clock()
                function(matrix, matrix)
                seconds.append(clock() - start)
            peaks[name] = 2 * size**3 / min(seconds) / 1e9
    return peaks


# -- timing and tables -------------------------------------------------------------------------------------------


def interleave(functions: dict, repeats: int, clock) -> dict[str, list[float]]:
    """Measure the seconds of each function, in interleaved rounds."""
    seconds = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = clock()
            function()
            seconds[name].append(clock() - start)
    return seconds


def median(values) -> float:
    import numpy as np

    return float(np.median(values))


def spread(values, digits: int = 2) -> str:
    """Format median and quartiles."""
    import numpy as np

    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def ratios(numerator, denominator) -> list[float]:
    return [a / b for a, b in zip(numerator, denominator, strict=True)]


def row(cells, widths) -> None:
    """Print a row of a table immediately, as the benchmarks run for minutes."""
    print(
        "| " + " | ".join(str(cell).ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |", flush=True
    )


def title(names, widths) -> None:
    row(names, widths)
    row(["-" * width for width in widths], widths)
