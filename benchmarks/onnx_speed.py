"""Models in ONNX against torch: `python benchmarks/onnx_speed.py [--quick]`.

Size of the installed packages and of the model, time from the start of a process to the end of its first prediction,
latency of one text and throughput of 1,000 short texts, and the accuracy with weights of 8 bits, all with the default
classifier on MiniLM. (A script named onnx.py would hide the package onnx.)
"""

import importlib.metadata
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import common

ENVIRONMENTS = {"torch": ("sklearn-gliclass",), "ONNX": ("onnxruntime", "tokenizers", "numpy")}
LOAD = {
    "torch": "from sklearn_gliclass import GLiClassClassifier as C; clf = C.from_pretrained({!r})",
    "ONNX": "from sklearn_gliclass.onnx import OnnxClassifier as C; clf = C({!r})",
    "ONNX, 8 bits": "from sklearn_gliclass.onnx import OnnxClassifier as C; clf = C({!r})",
}
IMPORTS = ("pass", "import sklearn", "import sklearn_gliclass", "import sklearn_gliclass.onnx")
SETS = ("trec6", "banking77")


def installed(names) -> dict[str, float]:
    """Return the megabytes of packages and all that they depend on, by name."""
    sizes, waiting = {}, list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in sizes:
            continue
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:  # for another system
            continue
        files = [Path(package.locate_file(file)) for file in package.files or ()]
        sizes[name] = sum(file.stat().st_size for file in files if file.is_file()) / 2**20
        required = [line for line in package.requires or () if "extra ==" not in line]
        waiting += [re.match(r"[\w.-]+", line)[0] for line in required]
    return sizes


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def run(code: str, threads: int) -> float:
    """Return the seconds of a process."""
    path = os.pathsep.join([str(common.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    return time.perf_counter() - start


def build(options, name: str, n_rows: int, folder: Path):
    """Fit a classifier, save and export it; return it with the exported ones and the test set."""
    from sklearn_gliclass import GLiClassClassifier
    from sklearn_gliclass.onnx import OnnxClassifier

    train = common.read(options, name, "train").sample(n_rows, random_state=0)
    clf = GLiClassClassifier(random_state=0, **({"max_epochs": 1} if options.quick else {})).fit(
        train.text, train.label
    )
    clf.save_pretrained(folder / "torch")
    clf.export_onnx(folder / "ONNX")
    clf.export_onnx(folder / "ONNX, 8 bits", quantize=True)
    exported = {kind: OnnxClassifier(folder / kind, options.threads) for kind in LOAD if kind != "torch"}
    return {"torch": clf, **exported}, common.read(options, name)


def compare_accuracy(name: str, n_rows: int, classifiers: dict, test, widths) -> None:
    probabilities = {kind: clf.predict_proba(test.text) for kind, clf in classifiers.items()}
    classes = classifiers["torch"].classes_
    expected = probabilities["torch"]
    for kind, values in probabilities.items():
        accuracy = (classes[values.argmax(axis=1)] == test.label.to_numpy()).mean()
        equal = (values.argmax(axis=1) == expected.argmax(axis=1)).mean()
        difference = np.abs(values - expected)
        cells = (f"{accuracy:.4f}", f"{equal:.4f}", f"{difference.max():.2g}", f"{difference.mean():.2g}")
        common.row((name, n_rows, kind, *cells), widths)


def compare_sizes(folder: Path) -> None:
    widths = (14, 22, 12)
    common.title(("", "installed packages, MB", "model, MB"), widths)
    for kind in LOAD:
        packages = installed(ENVIRONMENTS[kind.split(",")[0]])
        common.row((kind, f"{sum(packages.values()):.0f}", f"{megabytes(folder / kind):.1f}"), widths)
    print()


def compare_start_up(folder: Path, text: str, repeats: int, threads: int) -> None:
    codes = {kind: f"{load.format(str(folder / kind))}; clf.predict([{text!r}])" for kind, load in LOAD.items()}
    functions = {
        name: (lambda code=code: run(code, threads)) for name, code in {**codes, **{c: c for c in IMPORTS}}.items()
    }
    seconds = common.interleave(functions, repeats + 1, time.perf_counter)
    widths = (40, 22)
    common.title(("process until its end", "wall, s"), widths)
    for name, values in seconds.items():
        label = f"load and predict one text: {name}" if name in LOAD else f"`{name}`"
        common.row((label, common.spread(values[1:])), widths)  # without the first round, which fills the file cache
    print()


def compare_speed(options, classifiers: dict, texts: list[str]) -> None:
    one = {
        kind: (lambda clf=clf: [clf.predict(texts[i : i + 1]) for i in range(10)]) for kind, clf in classifiers.items()
    }
    many = {kind: (lambda clf=clf: clf.predict(texts)) for kind, clf in classifiers.items()}
    clock, repeats = common.CLOCKS[options.clock], max(5, options.repeats)
    for functions in (one, many):
        common.interleave(functions, 1, clock)
    one, many = (common.interleave(functions, repeats, clock) for functions in (one, many))
    widths = (14, 24, 20, 26)
    common.title(("", "latency of one text, ms", "texts per second", "throughput against torch"), widths)
    for kind in classifiers:
        latency = common.spread([100 * value for value in one[kind]], 1)
        throughput = common.spread([len(texts) / value for value in many[kind]], 0)
        common.row((kind, latency, throughput, common.spread(common.ratios(many["torch"], many[kind]))), widths)
    print()


def main():
    options = common.arguments(__doc__)
    common.header(options)
    n_rows = {"trec6": 300, "banking77": 770} if options.quick else {"trec6": 1000, "banking77": 1540}
    with tempfile.TemporaryDirectory() as folder:
        built = {name: build(options, name, n_rows[name], Path(folder, name)) for name in SETS}
        classifiers, test = built["banking77"]
        texts = test.text.tolist()[:1000]
        compare_sizes(Path(folder, "banking77"))
        compare_start_up(Path(folder, "banking77"), texts[0], 3 if options.quick else 5, options.threads)
        compare_speed(options, classifiers, texts)
        widths = (10, 12, 14, 10, 16, 16, 16)
        names = ("set", "rows of fit", "", "accuracy", "equal classes", "max. difference", "mean difference")
        common.title(names, widths)
        for name in SETS:
            compare_accuracy(name, n_rows[name], *built[name], widths)


if __name__ == "__main__":
    main()
