"""Elastic weight consolidation: what earlier data taught holds on to its weights.

Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks", https://arxiv.org/abs/1612.00796.
After each training k, the Fisher information F_k says how strongly its n_k rows depend on each weight, and the penalty
``lambda / 2 * sum_k n_k F_k (w - w_k)^2 / sum_k n_k`` draws the weights w to the values w_k that they had then. The
sum of parabolas is one parabola, so that two numbers for each weight are all that is kept: the mean of F_k, and the
mean of w_k weighted by n_k F_k.
"""

from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from skorch.callbacks import Callback

MAX_ROWS = 256  # rows, drawn at random, that the information is estimated from: each takes a backward pass


class ElasticWeightConsolidation(Callback):
    """Adds the gradient of the penalty before the optimiser's step, and its size to the history.

    Parameters
    ----------
    ewc_lambda : float
        Strength of the penalty.
    state : dict, optional
        What :meth:`consolidate` left after the earlier trainings: "fisher" and "anchor" by name of weight, and
        "n_rows". None: there is nothing to protect yet.
    """

    def __init__(self, ewc_lambda: float, state: dict | None = None):
        self.ewc_lambda = ewc_lambda
        self.state = state
        self._weights = []

    def on_train_begin(self, net, **kwargs):
        fisher, anchor = (self.state[name] if self.state else {} for name in ("fisher", "anchor"))
        self._weights = [
            (weight, torch.as_tensor(anchor[name]).to(weight), torch.as_tensor(fisher[name]).to(weight))
            for name, weight in net.module_.named_parameters()
            if name in fisher
        ]

    @torch.no_grad()
    def on_grad_computed(self, net, named_parameters=None, **kwargs):
        for weight, anchor, fisher in self._weights:
            if weight.grad is not None:
                weight.grad.addcmul_(fisher, weight - anchor, value=self.ewc_lambda)

    @torch.no_grad()
    def on_epoch_end(self, net, **kwargs):
        if self._weights:
            penalty = sum((fisher * (weight - anchor).square()).sum() for weight, anchor, fisher in self._weights)
            net.history.record("ewc_penalty", float(self.ewc_lambda / 2 * penalty))

    def on_train_end(self, net, **kwargs):
        self._weights = []

    def consolidate(self, net, dataset, seed: int) -> None:
        """Add what the data just trained on depend on to the state."""
        fisher = fisher_information(net, dataset, seed)
        self.state = consolidate(self.state, fisher, net.module_, len(dataset))


def fisher_information(net, dataset, seed: int) -> dict[str, np.ndarray]:
    """Diagonal of the Fisher information of each weight, a mean over rows.

    The squared gradient of the log-likelihood of an answer drawn from the model itself, row by row.

    Parameters
    ----------
    net : Trainer
        Its model as it is.
    dataset : TextDataset
        At most `MAX_ROWS` of its rows are read.
    seed : int
        Seed of rows and answers.

    Returns
    -------
    dict of str to ndarray
        By the names of ``named_parameters``.
    """
    net.disable_dropout()
    weights = {name: weight for name, weight in net.module_.named_parameters() if weight.requires_grad}
    squares = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    generator = torch.Generator(net.device).manual_seed(seed)
    likelihood = LIKELIHOODS[net.module_.config.problem_type]
    n_rows = min(MAX_ROWS, len(dataset))
    for batch in islice(dataset.batches(1, np.random.RandomState(seed)), n_rows):
        inputs = {name: tensor for name, tensor in batch.inputs.items() if name not in ("labels", "sample_weight")}
        logits = net.logits(inputs)
        gradients = torch.autograd.grad(likelihood(logits, generator), list(weights.values()), allow_unused=True)
        for square, gradient in zip(squares.values(), gradients, strict=True):
            if gradient is not None:
                square += gradient.square() / n_rows
    return {name: square.cpu().numpy() for name, square in squares.items()}


def consolidate(kept: dict | None, fisher: dict[str, np.ndarray], module, n_rows: int) -> dict:
    """What is kept after one more training, on `n_rows` rows: "fisher" and "anchor" by name, and "n_rows".

    Which weights are frozen may differ from training to training. Of a frozen weight nothing is measured, which
    counts as information 0: these rows hold it nowhere, and what earlier rows say of it stays.
    """
    kept = {"fisher": {}, "anchor": {}, "n_rows": 0} if kept is None else kept
    total = kept["n_rows"] + n_rows
    mean, anchor = {}, {}
    for name, parameter in module.named_parameters():
        if name not in fisher and name not in kept["fisher"]:
            continue
        weight = parameter.detach().cpu().numpy()
        before, now = kept["fisher"].get(name, 0.0) * (kept["n_rows"] / total), fisher.get(name, 0.0) * (n_rows / total)
        mean[name] = np.asarray(before + now)
        # No data depend on a weight whose information is 0: wherever it is, is well.
        share = np.divide(now, mean[name], out=np.ones_like(mean[name]), where=mean[name] > 0)
        earlier = kept["anchor"].get(name, weight)
        anchor[name] = np.asarray(earlier + share * (weight - earlier))
    return {"fisher": mean, "anchor": anchor, "n_rows": total}


def _of_choice(logits, generator):
    drawn = torch.multinomial(logits.detach().softmax(dim=1), 1, generator=generator)
    return logits.log_softmax(dim=1).gather(1, drawn).sum()


def _of_labels(logits, generator):
    drawn = torch.bernoulli(logits.detach().sigmoid(), generator=generator)
    return -F.binary_cross_entropy_with_logits(logits, drawn, reduction="sum")


def _of_values(logits, generator):
    # Standardised values, with the noise of a standard deviation.
    noise = torch.empty_like(logits).normal_(generator=generator)
    return -(logits - (logits.detach() + noise)).square().sum() / 2


# problem_type -> f(logits, generator): log-likelihood of an answer that is drawn from the model
LIKELIHOODS = {
    "single_label_classification": _of_choice,
    "multi_label_classification": _of_labels,
    "regression": _of_values,
}
