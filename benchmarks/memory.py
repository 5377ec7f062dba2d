"""Memory and time of many texts, and of training: `python benchmarks/memory.py [--quick]`.

`predict` with a tiny encoder on 250,000, 500,000 and 1,000,000 distinct short texts (with --quick, a tenth), each in a
process of its own: the peak of the resident memory minus that before the call, without the texts.

`fit` with MiniLM, and with an encoder of BERT-large's size, on texts of 256 tokens, 32 per optimiser step, in several
forward passes (`gradient_accumulation_steps`): the same peak, and that of a first fit without training is the start.
"""

import os
import subprocess
import sys

import common

NUMBERS = (250_000, 500_000, 1_000_000)
WIDTHS = (10, 16, 18, 20, 12, 12)
TITLES = ("texts", "memory, start", "peak over start", "per text", "predict, s", "texts/s")

PREDICT = """
import resource, sys, time
import numpy as np
import torch
from sklearn_gliclass import GLiClassClassifier
from sklearn_gliclass.testing import TINY

torch.set_num_threads(int(sys.argv[2]))
words = ["card", "lost", "my", "new", "where", "is", "transfer", "failed", "please", "help", "the", "fee"]
rng = np.random.RandomState(0)
texts = [" ".join(words[i] for i in row) + f" {n}" for n, row in enumerate(rng.randint(0, 12, (int(sys.argv[1]), 5)))]
clf = GLiClassClassifier(**{**TINY, "max_epochs": 1}).fit(texts[:64], ["card", "transfer"] * 32)
clf.predict(texts[:1000])


def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


start, begin = resident(), time.perf_counter()
predicted = clf.predict(texts)
seconds = time.perf_counter() - begin
assert len(predicted) == len(texts)
print(start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - start, seconds)
"""

TRAIN = """
import resource, sys, time
import torch
from sklearn_gliclass import GLiClassClassifier

torch.set_num_threads(int(sys.argv[2]))
accumulate, is_large = int(sys.argv[1]), sys.argv[3] == "large"
texts = [f"{n} " + "card " * 253 for n in range(32 if is_large else 64)]
y = ["card", "transfer"] * (len(texts) // 2)
options = {"freeze_encoder": "embeddings", "device": "cpu", "random_state": 0, "scorer_type": "mlp"}
if is_large:
    sizes = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    options["encoder_config"] = {"model_type": "bert", "vocab_size": 1000, **sizes}
clf = GLiClassClassifier(**options, max_epochs=0).fit(texts, y)
clf.predict(texts[:2])


def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


start, begin = resident(), time.perf_counter()
clf.set_params(max_epochs=1, batch_size=32 // accumulate, gradient_accumulation_steps=accumulate).fit(texts, y)
seconds = time.perf_counter() - begin
print(start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - start, seconds)
"""
TRAINING_WIDTHS = (16, 10, 10, 16, 18, 12)
TRAINING_TITLES = ("encoder", "batch", "passes", "memory, start", "peak over start", "fit, s")
PASSES = {"MiniLM": (1, 2, 4), "large": (4, 8, 32)}


def main():
    options = common.arguments(__doc__)
    common.header(options)
    training(options)
    print()
    common.title(TITLES, WIDTHS)
    for number in NUMBERS:
        n = number // 10 if options.quick else number
        start, more, seconds = measure(PREDICT, n, options)
        common.row(
            (n, f"{start:.0f} MiB", f"{more:.0f} MiB", f"{more * 2**20 / n:.0f} B", f"{seconds:.1f}",
             f"{n / seconds:.0f}"), WIDTHS,
        )  # fmt: skip


def training(options) -> None:
    """Print the memory of a fit on batches of 32 x 256 tokens."""
    common.title(TRAINING_TITLES, TRAINING_WIDTHS)
    for encoder, numbers in PASSES.items():
        if options.quick and encoder == "large":
            continue
        for passes in numbers:
            start, more, seconds = measure(TRAIN, passes, options, encoder)
            cells = f"{start:.0f} MiB", f"{more:.0f} MiB", f"{seconds:.1f}"
            common.row((encoder, 32 // passes, passes, *cells), TRAINING_WIDTHS)


def measure(script: str, number: int, options, *arguments: str) -> tuple[float, float, float]:
    """Run a script in a process; return MiB at the start, MiB of the peak over it, and seconds."""
    command = [sys.executable, "-c", script, str(number), str(options.threads), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(common.ROOT), "OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    start, more, seconds = map(float, done.stdout.split())
    return start, more, seconds


if __name__ == "__main__":
    main()
