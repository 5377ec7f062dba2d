"""Start-up: `python benchmarks/startup.py [--quick]`.

CPU and wall time of imports, each in a process of its own, relative to those of `import skorch`, which imports torch
and scikit-learn; then the first, the second and the twentieth `fit` without training (`max_epochs=0`) on MiniLM in one
process, and the number of the encoder's files that they open.
"""

import os
import subprocess
import sys
import time

import common

IMPORTS = {
    "nothing": "pass",
    "torch": "import torch",
    "skorch": "import skorch",
    "sklearn_gliclass": "import sklearn_gliclass",
    "sklearn_gliclass, with its model": "from sklearn_gliclass import GLiClassModel",
    "transformers' PreTrainedModel": "from transformers import PreTrainedModel",
    "gliclass": "import gliclass",
}

FITS = """
import sys, time
from sklearn_gliclass import GLiClassClassifier

opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
for number in range(1, 21):
    before, start, wall = len(opened), time.process_time(), time.perf_counter()
    GLiClassClassifier(max_epochs=0).fit(["a goal", "a vote"], ["sports", "politics"])
    files = sum("minilm" in path.lower() for path in opened[before:])
    print(number, time.process_time() - start, time.perf_counter() - wall, files)
"""


def run(code: str) -> tuple[float, float, str]:
    """Return CPU time, wall time and output of a process."""
    environment = {**os.environ, "PYTHONPATH": str(common.ROOT)}
    before, start = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    after = os.times()
    used = after.children_user - before.children_user + after.children_system - before.children_system
    return used, time.perf_counter() - start, done.stdout


def main():
    options = common.arguments(__doc__)
    common.header(options)
    repeats = 2 if options.quick else max(5, options.repeats)
    measured = {name: [] for name in IMPORTS}
    for _ in range(repeats + 1):
        for name, code in IMPORTS.items():
            measured[name].append(run(code)[:2])
    measured = {
        name: times[1:] for name, times in measured.items()
    }  # without the first round, which fills the file cache
    processor, wall = ({name: [t[i] for t in times] for name, times in measured.items()} for i in (0, 1))
    widths = (32, 22, 22, 24)
    common.title(("import", "CPU, s", "wall, s", "relative to skorch (CPU)"), widths)
    for name in IMPORTS:
        over = common.spread(common.ratios(processor[name], processor["skorch"]))
        common.row((name, common.spread(processor[name]), common.spread(wall[name]), over), widths)
    print()
    widths = (6, 14, 8, 26)
    common.title(("fit", "CPU, s", "wall, s", "files of the encoder read"), widths)
    for line in run(FITS)[2].splitlines():
        number, used, waited, files = line.split()
        if number in ("1", "2", "20"):
            common.row((number, f"{float(used):.2f}", f"{float(waited):.2f}", files), widths)


if __name__ == "__main__":
    main()
