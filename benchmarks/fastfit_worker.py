"""FastFit on the rows of a folder, in a process of its own: it needs older libraries than this package.

    python -m venv fastfit && fastfit/bin/pip install fast-fit "transformers<4.47" "datasets<3" accelerate
    export FASTFIT_PYTHON=fastfit/bin/python          # for the method "fastfit" of quality.py, which calls this file

The folder has ``rows.json`` with the encoder, the rows and the seed. ``result.json`` receives the probabilities of the
test rows, the order of the classes, and the seconds. The settings are those of the examples of FastFit: 40 epochs in
batches of 32, each text 4 times in a batch, and Adafactor. A fit ends after 400 steps, as that of SetFit, and texts are
truncated to 128 tokens.
"""

import json
import math
import sys
import time
import types
from pathlib import Path

import fastfit.train
import numpy as np
import torch
from datasets import Dataset, DatasetDict

EPOCHS, BATCH, MAX_STEPS, PREDICTION_BATCH = 40, 32, 400, 64
# The metric would be loaded from the hub; the scores are computed by quality.py.
fastfit.train.load_metric = lambda *_, **__: types.SimpleNamespace(compute=lambda **_: {})


def main(folder: Path) -> None:
    rows = json.loads((folder / "rows.json").read_text())
    train = Dataset.from_dict({"text": rows["X_train"], "label": rows["y_train"]})
    start = now()
    trainer = fastfit.FastFitTrainer(
        dataset=DatasetDict(train=train, validation=train, test=train),  # it demands all three
        model_name_or_path=rows["encoder"],
        text_column_name="text",
        label_column_name="label",
        num_train_epochs=EPOCHS,
        max_steps=min(MAX_STEPS, EPOCHS * math.ceil(len(train) / BATCH)),
        per_device_train_batch_size=BATCH,
        max_text_length=128,
        dataloader_drop_last=False,
        num_repeats=4,
        optim="adafactor",
        clf_loss_factor=0.1,
        seed=rows["seed"],
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        output_dir=str(folder / "output"),
        save_strategy="no",
    )
    model = trainer.train().eval()  # a saved one cannot be read with this version of transformers
    fit_seconds = now() - start
    start = now()
    probabilities = predict(model, trainer.tokenizer, rows["X_test"])
    result = {
        "classes": list(trainer.labels),
        "probabilities": probabilities.tolist(),
        "fit_seconds": fit_seconds.tolist(),
        "predict_seconds": (now() - start).tolist(),
    }
    (folder / "result.json").write_text(json.dumps(result))


@torch.no_grad()
def predict(model, tokenizer, texts: list[str]) -> np.ndarray:
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    parts = []
    for first in range(0, len(texts), PREDICTION_BATCH):
        batch = tokenizer(
            texts[first : first + PREDICTION_BATCH], truncation=True, max_length=128, padding=True, return_tensors="pt"
        )
        scores = model.inference_forward(batch["input_ids"], batch["attention_mask"])
        parts.append(scores.softmax(dim=-1).numpy())
    return np.concatenate(parts)


def now() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
