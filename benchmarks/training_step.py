"""Share of the machine's matrix peak in fine-tuning: `python benchmarks/training_step.py [--quick] [--threads N]`.

One epoch of `Trainer` on MiniLM with batches of 32: all weights are trained, with dropout, clipping and AdamW, in
float32. "of peak" is the throughput of the encoder's arithmetic on real tokens, forward and backward, as a fraction of
that of a large matrix product in the same round.
"""

import numpy as np

import common

BATCH_SIZE, N_LABELS = 32, 10
WIDTHS = (20, 16, 8, 12, 16, 16)
TITLES = ("texts", "architecture", "tokens", "ms / step", "of peak", "peak, GFLOP/s")


def main():
    options = common.arguments(__doc__)
    common.header(options)
    n = BATCH_SIZE * (2 if options.quick else 8)
    short = common.read(options, "banking77").text.tolist()[:n]
    texts = {"short, banking77": short, "mixed, 5-80 words": common.mixed_texts(options, n, 5, 80)}
    common.title(TITLES, WIDTHS)
    for name, part in texts.items():
        for architecture in ("bi-encoder", "uni-encoder"):
            measure(name, architecture, part, options)


def measure(name, architecture, texts, options) -> None:
    labels = common.label_names(options, "banking77", N_LABELS)
    tied = {"tie_encoders": True} if architecture == "bi-encoder" else {}
    clf = common.untrained(architecture, labels, pooling_strategy="avg", batch_size=BATCH_SIZE, **tied)
    net, data, operations = prepare(clf, texts)
    clock = common.CLOCKS[options.clock]
    functions = {"peak": lambda: common.matrix_peaks(clock, 2), "fit": lambda: train(net, data)}
    common.interleave(functions, 1, clock)
    shares, peaks, seconds = [], [], []
    for _ in range(options.repeats):
        peaks.append(max(common.matrix_peaks(clock, 4).values()))
        seconds += common.interleave({"fit": functions["fit"]}, 1, clock)["fit"]
        shares.append(operations / seconds[-1] / 1e9 / peaks[-1])
    n_steps = len(texts) // BATCH_SIZE
    n_tokens = int(np.mean([batch.inputs["attention_mask"].sum() for batch in data.batches(BATCH_SIZE, None)]))
    step = 1000 * common.median(seconds) / n_steps
    common.row(
        (name, architecture, n_tokens, f"{step:.0f}", common.spread(shares), f"{common.median(peaks):.0f}"), WIDTHS
    )


def train(net, data) -> None:
    from sklearn_gliclass.model.allocation import keep_memory

    with keep_memory():  # as fits do
        net.partial_fit(data, epochs=1)


def prepare(clf, texts):
    """Return a net, its data, and the floating point operations of the encoder in an epoch."""
    from sklearn_gliclass.data.dataset import TextDataset
    from sklearn_gliclass.training.arguments import TrainingArguments
    from sklearn_gliclass.training.trainer import Trainer

    layout, n_labels = clf.fitted_.layout(), len(clf.label_names_)
    targets = np.eye(n_labels, dtype=np.float32)[np.random.RandomState(0).randint(n_labels, size=len(texts))]
    tokens, weight = layout.tokenize(texts), np.ones(len(texts), np.float32)
    data = TextDataset(layout, tokens, targets, weight, n_labels, n_labels, True)
    net = Trainer(clf.model_, TrainingArguments(lr=1e-5, others_lr=1e-5, batch_size=BATCH_SIZE)).initialize()
    lengths = layout.sequence_lengths(tokens, np.arange(n_labels))
    operations = common.encoder_flops(clf.config_.encoder_config, lengths, 10**6)
    if hasattr(layout, "label_sequences"):  # encoded in each step
        labels = [len(ids) for ids in layout.label_sequences]
        operations += len(texts) // BATCH_SIZE * common.encoder_flops(clf.config_.encoder_config, labels, 10**6)
    return net, data, 3 * operations


if __name__ == "__main__":
    main()
