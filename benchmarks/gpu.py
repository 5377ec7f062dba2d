"""Throughput in bfloat16 on a GPU, against gliclass and the peak of the card: `python benchmarks/gpu.py [--quick]`.

Both packages run the same weights (MiniLM, random heads) in mixed precision with bfloat16. Prediction: the better of
gliclass's batch sizes 32, 128 and 512 in its `ZeroShotClassificationPipeline` under autocast, against `predict_proba`.
Training: one epoch of gliclass's `Trainer` with ``bf16=True`` against one epoch of `fit`, in batches of 32. "of peak"
is the throughput of the encoder's arithmetic on real tokens, three times that of a prediction in training, as a
fraction of that of a large matrix product in bfloat16. ``--device cpu`` runs the same on a processor.
"""

import argparse
import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np

import common
import inference
import training

WIDTHS = (10, 16, 6, 6, 18, 10, 16, 8, 10)
TITLES = (
    "work",
    "architecture",
    "labels",
    "n",
    "ours / reference",
    "ours, t/s",
    "reference, t/s",
    "of peak",
    "difference",
)
ARCHITECTURES = ("uni-encoder", "bi-encoder", "bi-encoder-fused")
BATCH_SIZES = (32, 128, 512)
TRAINING_BATCH = 32


def main():
    options = arguments()
    common.header(options)
    peak = matrix_peak(options.device)
    print(f"{device_name(options.device)}, large matrix product in bfloat16: {peak / 1e12:.1f} TFLOP/s\n")
    n_predict, n_train = (512, 128) if options.quick else (8192, 1024)
    common.title(TITLES, WIDTHS)
    for architecture in ARCHITECTURES:
        labels = common.label_names(options, "banking77", 25)
        settings = {"device": options.device, "dtype": "bfloat16", "max_batch_tokens": options.max_batch_tokens}
        clf = common.untrained(architecture, labels, **settings)
        measure_prediction(clf, architecture, common.mixed_texts(options, n_predict, 5, 200), labels, options, peak)
        clf = common.untrained(architecture, labels, batch_size=TRAINING_BATCH, **settings, **training.RATES)
        measure_training(clf, architecture, common.mixed_texts(options, n_train, 5, 200), labels, options, peak)


def arguments() -> argparse.Namespace:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="device of torch (default: cuda)")
    parser.add_argument("--max-batch-tokens", type=int, default=65_536, help="tokens per batch of predict_proba")
    parser.add_argument("--quick", action="store_true", help="smaller workloads")
    parser.add_argument("--repeats", type=int, default=3, help="timed rounds")
    parser.add_argument("--data", type=Path, default=common.DATA, help="folder of the data sets")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("There is no GPU: run the benchmark on a machine that has one, or with --device cpu.")
    options.clock, options.threads = "wall", torch.get_num_threads()
    return options


def device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else common.cpu_name()


def finish(device: str) -> None:
    """Wait until the device has done all work."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def matrix_peak(device: str, repeats: int = 10) -> float:
    """Measure the floating point operations per second of a large matrix product in bfloat16."""
    import torch

    size = 8192 if device.startswith("cuda") else 1024
    matrix = torch.ones(size, size, dtype=torch.bfloat16, device=device)

    def multiply():
        torch.mm(matrix, matrix)
        finish(device)

    multiply()
    return 2 * size**3 / min(common.interleave({"product": multiply}, repeats, common.CLOCKS["wall"])["product"])


def measure_prediction(clf, architecture, texts, labels, options, peak: float) -> None:
    """Print a row of the table for `predict_proba`."""
    import torch
    from gliclass import ZeroShotClassificationPipeline

    with tempfile.TemporaryDirectory() as folder:
        model, tokenizer = common.reference(clf, Path(folder))
        pipeline = ZeroShotClassificationPipeline(
            model, tokenizer, max_length=512, device=options.device, classification_type="multi-label",
            progress_bar=False,
        )  # fmt: skip

    def reference(batch_size, threshold=0.5):
        with torch.autocast(torch.device(options.device).type, torch.bfloat16):
            found = pipeline(texts, labels, threshold=threshold, batch_size=batch_size)
        finish(options.device)
        return found

    clock = common.CLOCKS[options.clock]
    trial = common.interleave({size: lambda size=size: reference(size) for size in BATCH_SIZES}, 1, clock)
    best = min(trial, key=trial.get)
    functions = {"ours": lambda: clf.predict_proba(texts), "reference": lambda: reference(best)}
    clf.predict_proba(texts)
    seconds = common.interleave(functions, options.repeats, clock)
    difference = mean_difference(clf.predict_proba(texts), reference(best, threshold=0.0), labels)
    print_row("predict", architecture, labels, texts, seconds, inference.flops(clf, texts) / peak, difference)


def mean_difference(ours: np.ndarray, found, labels) -> float:
    """Return the mean difference between the probabilities of both packages, which bfloat16 rounds differently."""
    scores = [{each["label"]: each["score"] for each in row} for row in found]
    theirs = np.array([[row[label] for label in labels] for row in scores])
    difference = float(np.abs(ours - theirs).mean())
    assert difference < 0.02, f"the probabilities differ by {difference}"
    return difference


def measure_training(clf, architecture, texts, labels, options, peak: float) -> None:
    """Print a row of the table for an epoch of training."""
    import pandas as pd

    targets = np.eye(len(labels), dtype=int)[np.random.RandomState(0).randint(len(labels), size=len(texts))]
    y = pd.DataFrame(targets, columns=labels)
    with tempfile.TemporaryDirectory() as folder:
        model, data, collator = training.reference(clf, architecture, texts, labels, targets, Path(folder))
        clf.set_params(warm_start=True, max_epochs=1)
        functions = {
            "ours": lambda: (clf.fit(texts, y), finish(options.device)),
            "reference": lambda: train_reference(model, data, collator, folder, options.device),
        }
        clock = common.CLOCKS[options.clock]
        common.interleave(functions, 1, clock)
        seconds = common.interleave(functions, options.repeats, clock)
    operations = 3 * inference.flops(clf, texts)
    print_row("train", architecture, labels, texts, seconds, operations / peak, float("nan"))


def train_reference(model, data, collator, folder, device: str) -> None:
    """Run one epoch of the Trainer of gliclass."""
    from gliclass.training import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=folder, per_device_train_batch_size=TRAINING_BATCH, num_train_epochs=1, bf16=True,
        learning_rate=training.RATES["lr"], others_lr=training.RATES["others_lr"], weight_decay=0.01, max_grad_norm=1.0,
        use_cpu=device == "cpu", report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        Trainer(model=model, args=arguments, train_dataset=data, data_collator=collator).train()
    finish(device)


def print_row(work, architecture, labels, texts, seconds, at_peak: float, difference: float) -> None:
    """Print a row; `at_peak` is the time of the arithmetic at the device's peak, in seconds."""
    n = len(texts)
    ours, theirs = (common.median(seconds[name]) for name in ("ours", "reference"))
    faster = common.spread(common.ratios(seconds["reference"], seconds["ours"]))
    common.row(
        (work, architecture, len(labels), n, faster, f"{n / ours:.1f}", f"{n / theirs:.1f}", f"{at_peak / ours:.0%}",
         f"{difference:.1e}"), WIDTHS,
    )  # fmt: skip


if __name__ == "__main__":
    main()
