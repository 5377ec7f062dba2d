"""Tiny estimators, and the small data that many tests fit them to."""

import numpy as np
from skorch.callbacks import Callback

from sklearn_gliclass import GLiClassClassifier
from sklearn_gliclass.testing import TINY, TINY_ENCODERS

SPORTS = ["the goal was late", "a goal and a match", "the match was won", "late match, early goal"]
POLITICS = ["the vote is near", "a law and a vote", "the law was passed", "a vote on the new law"]
TEXTS = [*SPORTS, *POLITICS]
LABELS = ["sports"] * 4 + ["politics"] * 4
ARCHITECTURES = {
    "uni-encoder": "bert",
    "bi-encoder": "bert",
    "bi-encoder-fused": "bert",
    "encoder-decoder": "bart",  # T5 norms in float32 whatever its dtype
    "encoder-decoder-cls": "bart",
    "decoder-kv": "qwen3",
}


def tiny(**hyperparameters):
    return GLiClassClassifier(**{**TINY, "random_state": 0, "max_epochs": 3, **hyperparameters})


def tiny_of(architecture, **hyperparameters):
    encoder = TINY_ENCODERS[ARCHITECTURES[architecture]]
    return tiny(architecture_type=architecture, encoder_config=encoder, **hyperparameters)


# -- fits that fail ----------------------------------------------------------------------------------------------

X = ["red apple pie", "blue sea wave", "green apple tart", "deep sea fish"] * 2
FOOD = ["food", "sea"] * 4
PRICE = np.linspace(90, 110, 8)
OPTIONS = dict(TINY, random_state=0, max_epochs=3)


class FailAt(Callback):
    """Raise an error at some event of the training."""

    def __init__(self, event, error, calls=1):
        self.event, self.error, self.calls = event, error, calls

    def notify(self, event):
        if event == self.event:
            self.calls -= 1
            if self.calls == 0:
                raise self.error

    def on_train_begin(self, net, **kwargs):
        self.notify("on_train_begin")

    def on_batch_begin(self, net, **kwargs):
        self.notify("on_batch_begin")

    def on_grad_computed(self, net, **kwargs):
        self.notify("on_grad_computed")

    def on_batch_end(self, net, **kwargs):
        self.notify("on_batch_end")

    def on_epoch_end(self, net, **kwargs):
        self.notify("on_epoch_end")

    def on_train_end(self, net, **kwargs):
        self.notify("on_train_end")


def failing(event, error=None, calls=1):
    """Build a callback that fails at an event."""
    return [("fails", FailAt(event, error or RuntimeError("stop"), calls))]
