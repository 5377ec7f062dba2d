"""Elastic weight consolidation (EWC) against catastrophic forgetting.

Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks", https://arxiv.org/abs/1612.00796.
After each training k, the Fisher information F_k measures how strongly the likelihood of its n_k rows depends on each
weight, and the penalty ``lambda / 2 * sum_k n_k F_k (w - w_k)^2 / sum_k n_k`` pulls the weights w towards their values
w_k at that time. A sum of parabolas is a parabola, so that two numbers per weight are sufficient: the mean of F_k, and
the mean of w_k weighted by n_k F_k.
"""

from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from skorch.callbacks import Callback

from ..model.losses import mask_other_targets

MAX_ROWS = 256  # random rows on which the information is estimated, with a backward pass each


class ElasticWeightConsolidation(Callback):
    """Callback that adds the gradient of the penalty before the optimiser's step, and records the penalty.

    Parameters
    ----------
    ewc_lambda : float
        Strength of the penalty.
    state : dict, optional
        State of :meth:`consolidate` after the earlier trainings: "fisher" and "anchor" by parameter name, and "n_rows".
        If None, there was no earlier training.
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
        """Add the Fisher information of the data just trained on to the state."""
        fisher = fisher_information(net, dataset, seed)
        self.state = consolidate(self.state, fisher, net.module_, len(dataset))


def fisher_information(net, dataset, seed: int) -> dict[str, np.ndarray]:
    """Estimate the diagonal of the Fisher information, as a mean over rows.

    It is the squared gradient of the log-likelihood of a target sampled from the model, row by row.

    Parameters
    ----------
    net : Trainer
        Net with the trained model.
    dataset : TextDataset
        Training data, of which at most `MAX_ROWS` rows are used.
    seed : int
        Seed of the rows and of the sampled targets.

    Returns
    -------
    dict of str to ndarray
        Fisher information by the names of ``named_parameters``.
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
        if dataset.groups is not None:
            logits = mask_other_targets(logits, batch.inputs["labels"].to(logits.device))
        gradients = torch.autograd.grad(likelihood(logits, generator), list(weights.values()), allow_unused=True)
        for square, gradient in zip(squares.values(), gradients, strict=True):
            if gradient is not None:
                square += gradient.square() / n_rows
    return {name: square.cpu().numpy() for name, square in squares.items()}


def consolidate(kept: dict | None, fisher: dict[str, np.ndarray], module, n_rows: int) -> dict:
    """Update the state after a training on `n_rows` rows: "fisher" and "anchor" by name, and "n_rows".

    The frozen parameters may differ between trainings. A frozen parameter has the information 0 in a training, so that
    only the other trainings affect its penalty.
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
        # A weight with information 0 has no penalty, whatever its anchor.
        share = np.divide(now, mean[name], out=np.ones_like(mean[name]), where=mean[name] > 0)
        earlier = kept["anchor"].get(name, weight)
        anchor[name] = np.asarray(earlier + share * (weight - earlier))
    return {"fisher": mean, "anchor": anchor, "n_rows": total}


def _single_label_log_likelihood(logits, generator):
    sampled = torch.multinomial(logits.detach().softmax(dim=1), 1, generator=generator)
    return logits.log_softmax(dim=1).gather(1, sampled).sum()


def _multi_label_log_likelihood(logits, generator):
    sampled = torch.bernoulli(logits.detach().sigmoid(), generator=generator)
    return -F.binary_cross_entropy_with_logits(logits, sampled, reduction="sum")


def _regression_log_likelihood(logits, generator):
    # Standardised values, with normal noise of standard deviation 1.
    noise = torch.empty_like(logits).normal_(generator=generator)
    return -(logits - (logits.detach() + noise)).square().sum() / 2


# problem_type -> f(logits, generator): log-likelihood of a target that is sampled from the model
LIKELIHOODS = {
    "single_label_classification": _single_label_log_likelihood,
    "multi_label_classification": _multi_label_log_likelihood,
    "regression": _regression_log_likelihood,
}
