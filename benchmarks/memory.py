"""Memory and time of many texts: `python benchmarks/memory.py [--quick]`.

`predict` with a tiny encoder on 250,000, 500,000 and 1,000,000 distinct short texts (with --quick, a tenth), each in a
process of its own: the peak of the resident memory minus that before the call, without the texts.
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


def main():
    options = common.arguments(__doc__)
    common.header(options)
    common.title(TITLES, WIDTHS)
    for number in NUMBERS:
        n = number // 10 if options.quick else number
        command = [sys.executable, "-c", PREDICT, str(n), str(options.threads)]
        environment = {**os.environ, "PYTHONPATH": str(common.ROOT), "OMP_NUM_THREADS": str(options.threads)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        start, more, seconds = map(float, done.stdout.split())
        common.row(
            (n, f"{start:.0f} MiB", f"{more:.0f} MiB", f"{more * 2**20 / n:.0f} B", f"{seconds:.1f}",
             f"{n / seconds:.0f}"), WIDTHS,
        )  # fmt: skip


if __name__ == "__main__":
    main()
