"""Fits whose results are the same in one process and in two."""

import numpy as np
import torch
from sklearn.model_selection import GridSearchCV
from torch import nn

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor, RLTrainerConfig
from sklearn_gliclass.testing import TINY, TINY_ENCODERS

WORDS = ["goal", "match", "vote", "law", "player", "party", "coach", "senate", "striker", "ballot"]
N_ROWS = 21  # neither the number of rows nor that of the last batch is a multiple of the number of processes
ROWS = range(N_ROWS)
TEXTS = [" ".join(WORDS[(3 * row + k * k) % 10] for k in range(1 + row % 6)) + f" number {row}" for row in ROWS]
CLASSES = [("sports", "politics", "neither")[row % 3] for row in range(N_ROWS)]
MULTI = np.array([[row % 2, row % 3 == 0, row % 5 == 0] for row in range(N_ROWS)], int)
PRICES = np.linspace(-1.0, 3.0, N_ROWS) ** 2
WEIGHTS = 0.2 + np.arange(N_ROWS) % 4
# Not Adam, which amplifies rounding errors where a gradient is 0.
OPTIONS = dict(TINY, random_state=0, max_epochs=2, batch_size=8, optim="sgd", lr=0.1, others_lr=0.1)
NAMES = {0: "sports", 1: "politics", 2: "neither"}
SOFT = np.abs(np.sin(np.arange(3.0 * N_ROWS))).reshape(N_ROWS, 3)
SOFT /= SOFT.sum(axis=1, keepdims=True)


def classifier(y=CLASSES, sample_weight=None, rows=N_ROWS, **options):
    return GLiClassClassifier(**{**OPTIONS, **options}).fit(TEXTS[:rows], y[:rows], sample_weight)


def partial_fits():
    clf = GLiClassClassifier(**OPTIONS, ewc_lambda=1.0)
    clf.partial_fit(TEXTS[:12], CLASSES[:12])
    return clf.partial_fit(TEXTS[12:], CLASSES[12:])


def search():
    split = [(range(14), range(14, N_ROWS))]
    grid = {"scorer_type": ["simple", "mlp"]}
    grid = GridSearchCV(GLiClassClassifier(**OPTIONS), grid, cv=split, error_score="raise")
    return grid.fit(TEXTS, CLASSES).best_estimator_


def windows():
    """Fit texts of up to three windows."""
    return GLiClassClassifier(**OPTIONS, max_length=10).fit([f"{text} {text}" for text in TEXTS], CLASSES)


class MeanToken(nn.Module):
    """Value model: a linear function of the mean token id."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(1e-3))

    def forward(self, input_ids, attention_mask, **others):
        total = (input_ids * attention_mask).sum(dim=1, keepdim=True)
        return self.slope * total / attention_mask.sum(dim=1, keepdim=True)


def early_stopping():
    options = {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 1}
    return classifier(MULTI, label_names=NAMES, **options, lr=1.0, max_epochs=6)


def probe():
    """Fine-tune the default model, which starts from a label probe."""
    return GLiClassClassifier(random_state=0, optim="sgd", lr=1e-3, max_epochs=1).fit(TEXTS[:12], CLASSES[:12])


REINFORCED = RLTrainerConfig(max_epochs=1, batch_size=8, optim="sgd", lr=0.1, others_lr=0.1)
FITS = {
    "sample weights": lambda: classifier(sample_weight=WEIGHTS, gradient_accumulation_steps=2, batch_size=4),
    "contrastive": lambda: classifier(contrastive_loss_coef=0.5, max_num_classes=2),
    "uni-encoder": lambda: classifier(architecture_type="uni-encoder", contrastive_loss_coef=0.5, layer_wise=True),
    "fused": lambda: classifier(architecture_type="bi-encoder-fused", max_num_classes=2),
    "encoder-decoder": lambda: classifier(encoder_config=TINY_ENCODERS["t5"], architecture_type="encoder-decoder"),
    "one row in a batch": lambda: classifier(batch_size=1, rows=5, max_epochs=1),
    "early stopping": early_stopping,
    "frozen": lambda: classifier(SOFT, label_names=NAMES, freeze_encoder=True, scorer_type="mlp"),
    "calibrated": lambda: classifier(calibrate="cv"),
    "bfloat16": lambda: classifier(dtype="bfloat16", gradient_accumulation_steps=2, batch_size=4),
    "partial_fit": partial_fits,
    "search": search,
    "reinforcement": lambda: classifier(rl=REINFORCED, value_model=MeanToken()),
    "regressor": lambda: GLiClassRegressor(**OPTIONS).fit(TEXTS, PRICES),
    "adam": lambda: classifier(optim="adamw_torch", lr=1e-3, others_lr=1e-3),
    "adapters": lambda: classifier(lora_rank=2),
    "probe": probe,
    "windows": windows,
}


def results(estimator) -> dict[str, np.ndarray]:
    """Return weights, losses and other results of a fit."""
    weights = {name: parameter.detach().numpy() for name, parameter in estimator.model_.named_parameters()}
    others = {name: getattr(estimator, name) for name in ("temperature_", "shrinkage_") if hasattr(estimator, name)}
    history = estimator.history_
    losses = {name: history[:, name] for name in ("train_loss", "valid_loss") if name in history[0]}
    return {**weights, **others, **losses}
