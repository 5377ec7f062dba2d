"""Speed of inference against gliclass: `python benchmarks/inference.py [--quick] [--threads N]`.

Both packages run the same weights (MiniLM, random heads, float32), and their probabilities are compared before the
timing. The reference is `ZeroShotClassificationPipeline` with the better of the batch sizes 8 and 32, ours is
`GLiClassClassifier.predict_proba`; rounds are interleaved. "of peak" is the throughput of the encoder's arithmetic on
real tokens (of the last layer, only on tokens that are read), as a fraction of that of a large matrix product with the
faster of torch's libraries. "difference" is the largest difference between the probabilities.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import common

BATCH_SIZES = (8, 32)
WIDTHS = (22, 16, 6, 5, 18, 7, 10, 16, 9, 10)
TITLES = (
    "texts",
    "architecture",
    "labels",
    "n",
    "ours / reference",
    "at most",
    "ours, t/s",
    "reference, t/s",
    "of peak",
    "difference",
)


@dataclass
class Workload:
    """Texts and labels for one architecture."""

    name: str
    architecture: str
    texts: list[str]
    labels: list[str]


def workloads(options) -> list[Workload]:
    n_mixed, n_short = (16, 32) if options.quick else (64, 128)
    mixed = common.mixed_texts(options, n_mixed)
    long = common.mixed_texts(options, n_mixed // 2, 400, 400)
    names = common.label_names(options, "banking77", 77)
    banking, clinc = (common.read(options, name).text.tolist()[:n_short] for name in ("banking77", "clinc150"))
    found = [
        Workload("mixed, 5-400 words", architecture, mixed, names[:n])
        for architecture in ("uni-encoder", "bi-encoder", "bi-encoder-fused")
        for n in ((20,) if options.quick else (4, 20, 77))
    ]
    return [
        *found,
        Workload("long, 400 words", "uni-encoder", long, names[:4]),
        Workload("long, 400 words", "bi-encoder", long, names[:4]),
        Workload("short, banking77", "uni-encoder", banking, names[:25]),
        Workload("short, banking77", "uni-encoder", banking, names[:4]),
        Workload("short, banking77", "bi-encoder", banking, names[:4]),
        Workload("short, banking77", "bi-encoder", banking[: n_short // 2], names),
        Workload("short, clinc150", "bi-encoder", clinc[: n_short // 4], common.label_names(options, "clinc150", 150)),
    ]


def main():
    options = common.arguments(__doc__)
    common.header(options)
    clock = common.CLOCKS[options.clock]
    peaks = common.matrix_peaks(clock)
    print("Large matrix product: " + ", ".join(f"{name} {peak:.0f} GFLOP/s" for name, peak in peaks.items()) + "\n")
    common.title(TITLES, WIDTHS)
    for workload in workloads(options):
        measure(workload, options, clock, max(peaks.values()))
    print()
    overhead(options, clock)


def measure(workload: Workload, options, clock, peak: float) -> None:
    clf = common.untrained(workload.architecture, workload.labels)
    with tempfile.TemporaryDirectory() as folder:
        pipeline = reference_pipeline(clf, Path(folder))

    def reference(batch_size, threshold=0.5):
        return pipeline(workload.texts, workload.labels, threshold=threshold, batch_size=batch_size)

    difference = largest_difference(clf, workload, reference(8, threshold=0.0))
    trial = common.interleave({size: lambda size=size: reference(size) for size in BATCH_SIZES}, 1, clock)
    best = min(trial, key=trial.get)
    functions = {
        "ours": lambda: clf.predict_proba(workload.texts),
        "reference": lambda: reference(best),
        "products": products(clf, workload.texts),
    }
    seconds = common.interleave(functions, options.repeats, clock)
    ours, theirs, least = (common.median(seconds[name]) for name in functions)
    n = len(workload.texts)
    common.row(
        (
            workload.name, workload.architecture, len(workload.labels), n,
            common.spread(common.ratios(seconds["reference"], seconds["ours"])), f"{theirs / least:.2f}",
            f"{n / ours:.1f}", f"{n / theirs:.1f} (batch {best})",
            f"{flops(clf, workload.texts) / ours / 1e9 / peak:.0%}", f"{difference:.1e}",
        ),
        WIDTHS,
    )  # fmt: skip


def reference_pipeline(clf, folder: Path):
    from gliclass import ZeroShotClassificationPipeline

    model, tokenizer = common.reference(clf, folder)
    return ZeroShotClassificationPipeline(
        model, tokenizer, max_length=512, device="cpu", classification_type="multi-label", progress_bar=False
    )


def largest_difference(clf, workload: Workload, results) -> float:
    """Return the largest difference between the probabilities of both packages, which must be below 1e-4."""
    scores = [{found["label"]: found["score"] for found in row} for row in results]
    theirs = np.array([[row[label] for label in workload.labels] for row in scores])
    ours = clf.predict_proba(workload.texts)
    assert np.ptp(ours) > 0.01, "constant probabilities are not a meaningful comparison"
    difference = float(np.abs(ours - theirs).max())
    assert difference < 1e-4, f"{workload}: the probabilities differ by {difference}"
    return difference


def products(clf, texts):
    """Return a function that computes the matrix products of the encoders for these texts, in the same batches."""
    import torch

    from sklearn_gliclass.model.precision import autocast

    def pieces(encoder, masks, n_read):
        return [(encoder, int(mask.sum()), min(int(mask.sum()), n_read * len(mask))) for mask in masks]

    batches, labels = prepared(clf, texts)
    work = pieces(clf.model_.model.encoder_model, [batch["attention_mask"] for batch in batches], states_read(clf))
    if labels:
        work += pieces(clf.model_.model.label_encoder, [labels["class_attention_mask"]], 1)

    @torch.inference_mode()
    def run():
        with autocast("cpu", "float32", inference=True):
            for encoder, n_tokens, n_last in work:
                multiply(encoder.encoder.layer, torch.ones(n_tokens, encoder.config.hidden_size), n_last)

    return run


def multiply(layers, states, n_last: int) -> None:
    """Run the linear layers on the number of tokens of the packed pass; the last layer computes `n_last`."""
    from sklearn_gliclass.model.packed import FEED_FORWARD_TOKENS

    for layer in layers:
        queries = states[:n_last] if layer is layers[-1] else states
        for linear in (layer.attention.self.key, layer.attention.self.value):
            linear(states)
        for linear in (layer.attention.self.query, layer.attention.output.dense):
            linear(queries)
        for some in queries.split(FEED_FORWARD_TOKENS):
            layer.output.dense(layer.intermediate.dense(some))


def flops(clf, texts) -> float:
    """Compute the operations of the encoders on real tokens, with each text and label once."""
    layout = clf.fitted_.layout()
    lengths = layout.sequence_lengths(layout.tokenize(texts), np.arange(len(clf.label_names_)))
    total = common.encoder_flops(clf.config_.encoder_config, lengths, states_read(clf))
    if hasattr(layout, "label_sequences"):
        labels = [len(ids) for ids in layout.label_sequences]
        total += common.encoder_flops(clf.config_.label_model_config, labels, 1)
    return total


def states_read(clf) -> int:
    """Return the number of tokens that are read of a text's sequence: the first one, and those of labels in it."""
    return 1 if clf.architecture_type == "bi-encoder" else 1 + len(clf.label_names_)


def overhead(options, clock) -> None:
    """Measure predict_proba against the model on prepared batches."""
    import torch

    from sklearn_gliclass.model.precision import autocast

    widths = (16, 6, 6, 30)
    common.title(("architecture", "labels", "n", "predict_proba / bare loop"), widths)
    texts = common.read(options, "banking77").text.tolist()[: 256 if options.quick else 1000]
    for architecture, n_labels in (("bi-encoder", 77), ("uni-encoder", 25)):
        clf = common.untrained(architecture, common.label_names(options, "banking77", n_labels))
        batches, labels = prepared(clf, texts)

        @torch.inference_mode()
        def bare(clf=clf, batches=batches, labels=labels):
            with autocast("cpu", "float32", inference=True):
                shared = {"class_states": clf.model_.model.pool_labels(**labels)} if labels else {}
                for batch in batches:
                    clf.model_(**batch, **shared)

        bare()
        functions = {"ours": lambda clf=clf: clf.predict_proba(texts), "bare": bare}
        seconds = common.interleave(functions, max(5, options.repeats), clock)
        ratio = common.spread(common.ratios(seconds["ours"], seconds["bare"]), 3)
        common.row((architecture, n_labels, len(texts), ratio), widths)


def prepared(clf, texts):
    """Return the batches of the engine as tensors, and those of the labels."""
    import torch

    from sklearn_gliclass.data.batching import token_budget_batches

    def tensors(arrays):
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    layout, chunk = clf.fitted_.layout(), np.arange(len(clf.label_names_))
    tokens = layout.tokenize(sorted(set(texts)))
    lengths = layout.sequence_lengths(tokens, chunk)
    order = np.argsort(lengths, kind="stable")
    batches = [
        tensors(layout.text_batch([tokens[row] for row in order[batch]], [chunk] * len(order[batch])))
        for batch in token_budget_batches(lengths[order], clf.max_batch_tokens)
    ]
    return batches, tensors(layout.label_batch(chunk)) if hasattr(layout, "label_batch") else {}


if __name__ == "__main__":
    main()
