"""Speed of fine-tuning against gliclass: `python benchmarks/training.py [--quick] [--threads N]`.

One epoch over texts of 5 to 80 words with 5 labels, batches of 16, AdamW, float32, from the same initial weights, whose
losses on a batch of gliclass are compared before the timing. The reference is the `Trainer` of gliclass (with
accelerate, an undeclared dependency), ours is `GLiClassClassifier.fit`; "bare loop" is plain torch on prepared batches
of `fit`.
"""

import contextlib
import copy
import io
import tempfile
from pathlib import Path

import numpy as np

import common

WIDTHS = (16, 5, 18, 10, 14, 18, 8)
TITLES = ("architecture", "n", "ours / reference", "ours, s/s", "reference, s/s", "fit / bare loop", "loss")
ARCHITECTURES = ("uni-encoder", "bi-encoder", "bi-encoder-fused")
BATCH_SIZE = 16
RATES = {"lr": 1e-5, "others_lr": 1e-5}


def main():
    options = common.arguments(__doc__)
    common.header(options)
    n = 64 if options.quick else 256
    texts = common.mixed_texts(options, n, 5, 80)
    labels = common.label_names(options, "banking77", 5)
    targets = np.eye(5, dtype=int)[np.random.RandomState(0).randint(5, size=n)]
    common.title(TITLES, WIDTHS)
    for architecture in ARCHITECTURES:
        measure(architecture, texts, labels, targets, options)


def measure(architecture, texts, labels, targets, options) -> None:
    import pandas as pd

    n, y = len(texts), pd.DataFrame(targets, columns=labels)
    clf = common.untrained(architecture, labels, batch_size=BATCH_SIZE, **RATES)
    with tempfile.TemporaryDirectory() as folder:
        model, data, collator = reference(clf, architecture, texts, labels, targets, Path(folder))
        loss = equal_loss(clf, model, collator([data[i] for i in range(BATCH_SIZE)]))
        clf.set_params(warm_start=True, max_epochs=1)
        functions = {
            "ours": lambda: clf.fit(texts, y),
            "bare": bare_loop(clf, texts, targets),
            "reference": lambda: train_reference(model, data, collator, folder),
        }
        clock = common.CLOCKS[options.clock]
        common.interleave(functions, 1, clock)
        seconds = common.interleave(functions, options.repeats, clock)
    ours, theirs = (n / common.median(seconds[name]) for name in ("ours", "reference"))
    faster, overhead = (
        common.spread(common.ratios(seconds[over], seconds[under]))
        for over, under in (("reference", "ours"), ("ours", "bare"))
    )
    common.row((architecture, n, faster, f"{ours:.1f}", f"{theirs:.1f}", overhead, f"{loss:.4f}"), WIDTHS)


def reference(clf, architecture, texts, labels, targets, folder):
    """Build model, data set and collator of gliclass."""
    from gliclass.data_processing import AugmentationConfig, DataCollatorWithPadding, GLiClassDataset
    from transformers import AutoTokenizer

    model, tokenizer = common.reference(clf, folder)
    examples = [
        {"text": text, "all_labels": list(labels), "true_labels": [labels[i] for i in np.flatnonzero(target)]}
        for text, target in zip(texts, targets, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # hide the number of labels that it prints
        data = GLiClassDataset(
            examples, tokenizer, AugmentationConfig(enabled=False), max_length=512, architecture_type=architecture,
            prompt_first=clf.prompt_first, labels_tokenizer=AutoTokenizer.from_pretrained(folder),
        )  # fmt: skip
    return model, data, DataCollatorWithPadding(device="cpu", config=model.config)


def equal_loss(clf, model, batch) -> float:
    """Return the loss of a batch, which must be the same in both packages."""
    import torch

    names = ("input_ids", "attention_mask", "class_input_ids", "class_attention_mask", "labels_mask", "labels")
    inputs = {name: batch[name] for name in names if name in batch}
    with torch.no_grad():
        theirs = float(model.eval()(**batch).loss)
        ours = float(clf.model_.eval()(**inputs).loss)
    assert abs(ours - theirs) < 1e-5 * max(1, theirs), f"the losses differ: {ours} and {theirs}"
    return ours


def train_reference(model, data, collator, folder):
    """Run one epoch of the Trainer of gliclass."""
    from gliclass.training import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=folder, per_device_train_batch_size=BATCH_SIZE, num_train_epochs=1, learning_rate=RATES["lr"],
        others_lr=RATES["others_lr"], weight_decay=0.01, max_grad_norm=1.0, use_cpu=True,
        report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    weight = model.model.encoder_model.get_input_embeddings().weight
    before = weight.detach().clone()
    with contextlib.redirect_stdout(io.StringIO()):
        Trainer(model=model, args=arguments, train_dataset=data, data_collator=collator).train()
    assert not before.equal(weight), "the reference trained nothing"


def bare_loop(clf, texts, targets):
    """Return the same steps in plain torch, on prepared batches."""
    from torch import nn

    from sklearn_gliclass.data.dataset import TextDataset
    from sklearn_gliclass.model.precision import autocast
    from sklearn_gliclass.training.arguments import FIELDS, TrainingArguments
    from sklearn_gliclass.training.optimizers import build_optimizer

    layout = clf.fitted_.layout()
    weight = np.ones(len(texts), np.float32)
    n_labels = len(clf.label_names_)
    data = TextDataset(layout, layout.tokenize(texts), targets.astype(np.float32), weight, n_labels, n_labels, True)
    batches = [batch.inputs for batch in data.batches(BATCH_SIZE, np.random.RandomState(0))]
    model = copy.deepcopy(clf.model_).train()
    arguments = TrainingArguments(**{name: getattr(clf, name) for name in FIELDS})

    def run():
        optimizer = build_optimizer(model, model.encoder_modules(), arguments)
        for batch in batches:
            with autocast("cpu", "float32"):
                loss = model(**batch).loss
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), arguments.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return run


if __name__ == "__main__":
    main()
