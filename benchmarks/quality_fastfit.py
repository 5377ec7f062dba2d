"""Fit FastFit and predict, in an environment of its own, which quality_methods.py starts (see "FastFit" there).

    python benchmarks/quality_fastfit.py FOLDER

FOLDER holds ``input.json``: the texts and labels of the training rows, the texts of the test rows, the folder of the
encoder, the hyperparameters, the seed and the number of threads. The probabilities of the test rows, with the sorted
labels as columns, are written to ``probabilities.npy``; the seconds and versions to ``output.json``.

fast-fit 1.2.1 needs ``datasets<3`` (``load_metric``) and ``transformers<4.46`` (arguments of ``Trainer``).
"""

import importlib.metadata
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

PREDICT_BATCH = 64
PACKAGES = ["fast-fit", "torch", "transformers", "datasets"]


def main(folder: Path) -> None:
    data = json.loads((folder / "input.json").read_text(encoding="utf-8"))
    torch.set_num_threads(data["threads"])
    torch.set_float32_matmul_precision(data["matmul"])
    trainer, fit_seconds = timed(lambda: fit(data, folder))
    probabilities, predict_seconds = timed(lambda: predict(trainer, data["test_texts"], data["hyperparameters"]))
    np.save(folder / "probabilities.npy", probabilities)
    versions = " ".join(f"{name}={importlib.metadata.version(name)}" for name in PACKAGES)
    output = {"fit_seconds": fit_seconds, "predict_seconds": predict_seconds, "versions": versions}
    (folder / "output.json").write_text(json.dumps(output), encoding="utf-8")


def fit(data: dict, folder: Path):
    import fastfit.train
    from datasets import Dataset

    # The metric is a script of a hub that the library downloads. It is not used here.
    fastfit.train.load_metric = lambda *args, **kwargs: None
    rows = Dataset.from_dict({"text": data["train_texts"], "label": data["train_labels"]})
    trainer = fastfit.train.FastFitTrainer(
        train_dataset=rows,
        test_dataset=rows.select([0]),  # it is required, and not used here
        model_name_or_path=data["encoder"],
        label_column_name="label",
        text_column_name="text",
        output_dir=str(folder / "trainer"),
        seed=data["seed"],
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        **data["hyperparameters"],
    )
    trainer.train()
    assert trainer.labels == sorted(set(data["train_labels"]))
    return trainer


def predict(trainer, texts: list[str], hyperparameters: dict) -> np.ndarray:
    """Compute the softmax over the similarities, as FastFit's pipeline for text classification does."""
    model = trainer.model.eval()
    scores = []
    for start in range(0, len(texts), PREDICT_BATCH):
        tokens = trainer.tokenizer(
            texts[start : start + PREDICT_BATCH],
            padding=True,
            truncation=True,
            max_length=hyperparameters["max_text_length"],
            return_attention_mask=True,  # FastFit changed the tokenizer's default
            return_tensors="pt",
        )
        scores.append(model.inference_forward(tokens["input_ids"], tokens["attention_mask"]))
    return torch.cat(scores).double().softmax(dim=1).numpy()


def timed(work):
    start = time.perf_counter(), time.process_time()
    result = work()
    return result, [time.perf_counter() - start[0], time.process_time() - start[1]]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
