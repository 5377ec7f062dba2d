"""Reinforcement learning by proximal policy optimisation."""

import copy
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from skorch.callbacks import Callback
from torch import Tensor, nn

from ..cache.states import StateDataset
from ..data.batching import Batch, to_device
from ..data.dataset import Epochs
from ..model.precision import autocast, weight_dtype
from .arguments import RLTrainerConfig
from .optimizers import build_optimizer
from .ppo import POLICIES, clipped_loss, focal_weights
from .reference_models import compute_expected_rewards, compute_reference_probabilities
from .rewards import compute_rewards, read_components
from .trainer import Trainer


class Step:
    """Batches of one optimiser step, which skorch treats as one batch."""

    last_of_step = True

    def __init__(self, batches: list[Batch]):
        self.batches = batches

    def __len__(self) -> int:
        return sum(map(len, self.batches))


class Steps:
    """Iterable over the optimiser steps of an epoch."""

    def __init__(self, epochs: Epochs):
        self.epochs = epochs

    def __iter__(self):
        batches = []
        for batch, _ in self.epochs:
            batches.append(batch)
            if batch.last_of_step:
                yield Step(batches), None
                batches = []


@dataclass
class Rollout:
    """Batch with its sampled actions and their rewards; tensors are (n, 1), (n, labels) or (n, decisions)."""

    batch: Batch
    inputs: dict[str, Tensor]
    valid: Tensor
    actions: Tensor
    log_prob: Tensor
    focal: Tensor
    weights: Tensor  # of the decisions
    row_weights: Tensor
    rewards: dict[str, Tensor]
    reference: Tensor | None
    logits: Tensor
    advantage: Tensor = field(init=False)

    @property
    def reward(self) -> Tensor:
        """Sum of the components."""
        return cast("Tensor", sum(self.rewards.values()))  # there is at least one


class RecordMeans(Callback):
    """Callback that records the measures of the steps in the history, as means over the epoch's texts."""

    def on_epoch_end(self, net, **kwargs):
        batches = net.history[-1]["batches"]
        for name in net.measured_:
            values, sizes = zip(*((row[name], row["train_batch_size"]) for row in batches if name in row), strict=True)
            net.history.record(name, float(np.average(values, weights=sizes)))


class RLTrainer(Trainer):
    """Training loop of reinforcement learning by proximal policy optimisation (PPO), as a skorch net.

    The policy is the model's probabilities, and its actions are the labels of the texts: each label is a decision of
    its own (multi-label), or one label is chosen (single-label). For each batch, actions are sampled and rewarded, and
    `num_rl_iters` updates raise the probability of actions whose reward is above the expected one, with clipped
    probability ratios. Dropout is disabled, so that the ratios start at 1. Losses, divergences and entropies are summed
    over the decisions of a text and averaged over the texts, weighted by their sample weights.

    Parameters
    ----------
    module : GLiClassModel
        The model, which is trained in place.
    args : RLTrainerConfig, optional
        Hyperparameters of reinforcement learning. If None, ``RLTrainerConfig()``.
    valid : TextDataset, optional
        Validation set, as in :class:`Trainer`.
    dtype : {"float32", "bfloat16", "float64"}, default="float32"
        Floating point type, as in :class:`Trainer`.
    seed : int, default=0
        Seed of the order of the data and of the actions.
    reward_components : dict or list of (name, function) pairs, optional
        Reward functions, whose sum is maximised. Each takes four tensors of shape (n, labels) -- the probabilities, the
        actions, the true labels and the mask of known labels -- and returns a reward for each text, of shape (n, 1). If
        None, the F1 score of each text. The module ``sklearn_gliclass.training.rewards`` has others, and
        ``MetricReward`` for metrics of scikit-learn.
    value_model : torch.nn.Module, fitted regressor or callable, optional
        Predictor of the expected reward of a text, which is subtracted from its reward to give the advantage. A
        module takes the inputs of the model and returns (n, 1), or an output whose mean logit is used; a copy of it is
        trained together with the model, at the same learning rates. A regressor's ``predict``, or a callable, takes the
        texts, once before the training. If None, the mean reward of the optimiser step.
    reference_model : fitted GLiClassClassifier, (GLiClassModel, tokenizer) or callable, optional
        Reference policy of the Kullback-Leibler penalty, whose factor is `kl_beta`. With ``kl_beta=-1``, the divergence
        is recorded only. The pair may have a third item, the tokenizer of the label encoder. A callable takes texts
        and label texts, and returns probabilities (n_texts, n_labels). If None, there is no penalty.
    **kwargs
        `callbacks`, `progress`, `device` and the further parameters of :class:`Trainer`.

    Attributes
    ----------
    module_ : GLiClassModel
        The trained model.
    value_model_ : torch.nn.Module
        The trained copy of `value_model`. It exists if `value_model` is a module.
    history : skorch.history.History
        Besides losses and learning rates, the means of each epoch over texts and updates: `reward` and `reward_NAME` of
        each component, `advantage` and `advantage_std`, `policy_loss`, `clip_fraction` (fraction of the decisions whose
        ratio is outside the clipping range), `entropy`, `kl` (with a reference model) and `value_loss` (with a module
        as value model).

    See Also
    --------
    Trainer : Supervised training loop.

    Notes
    -----
    A reward that is the same for all texts has an advantage of 0, so that only weight decay, the entropy bonus and the
    Kullback-Leibler penalty change the weights.

    References
    ----------
    Schulman et al., "Proximal Policy Optimization Algorithms", 2017, https://arxiv.org/abs/1707.06347

    Examples
    --------
    >>> from sklearn_gliclass import GLiClassClassifier, RLTrainerConfig
    >>> from sklearn_gliclass.testing import TINY
    >>> from sklearn_gliclass.training.rewards import precision, recall
    >>> clf = GLiClassClassifier(**TINY, rl=RLTrainerConfig(max_epochs=2), label_names=["sports", "politics"],
    ...                          reward_components=[("precision", precision), ("recall", recall)])
    >>> clf = clf.fit(["goal", "vote", "a goal in the vote"], [[1, 0], [0, 1], [1, 1]])
    >>> clf.n_iter_, len(clf.history_[:, "reward_precision"])     # 5 supervised epochs, 2 of reinforcement
    (7, 2)
    """

    args_: RLTrainerConfig
    module_: Any
    value_model_: Any

    def __init__(self, module, args=None, valid=None, dtype="float32", seed=0, *, reward_components=None,
                 value_model=None, reference_model=None, **kwargs):  # fmt: skip
        self.reward_components = reward_components
        self.value_model = value_model
        self.reference_model = reference_model
        super().__init__(module, args or RLTrainerConfig(), valid, dtype, seed, **kwargs)

    @property
    def _default_callbacks(self):
        return [*super()._default_callbacks, ("record_means", RecordMeans())]

    # -- preparation -------------------------------------------------------------------------------

    def initialize_optimizer(self, triggered_directly=None):
        """Build the optimiser of the model and, if it is a module, that of the value model."""
        super().initialize_optimizer(triggered_directly)
        self.policy_ = self._check_options()
        self.components_ = read_components(self.reward_components)
        if isinstance(self.value_model, nn.Module):
            self.value_model_ = copy.deepcopy(self.value_model).to(self.device, weight_dtype(self.dtype))
            encoders = self.value_model_.encoder_modules() if hasattr(self.value_model_, "encoder_modules") else []
            self.value_optimizer_ = build_optimizer(self.value_model_, encoders, self.args_)

    def _check_options(self):
        """Return the policy class of the problem type; an option without effect raises."""
        args, problem_type = self.args_, self.module_.config.problem_type
        if not isinstance(args, RLTrainerConfig):
            raise TypeError(f"RLTrainer takes an RLTrainerConfig, got {type(args).__name__}.")
        if problem_type not in POLICIES:
            raise ValueError(
                f"Reinforcement learning needs a classification model, got problem_type={problem_type!r}; it must be "
                f"one of {sorted(POLICIES)}."
            )
        if args.kl_beta >= 0 and self.reference_model is None:
            raise ValueError(
                f"kl_beta={args.kl_beta!r} is the factor of the divergence from a reference model, and "
                "reference_model is None; set reference_model, or kl_beta=-1."
            )
        policy = POLICIES[problem_type]
        if args.threshold != RLTrainerConfig.threshold and (
            args.get_actions != "threshold" or problem_type == "single_label_classification"
        ):
            raise ValueError(
                f"threshold={args.threshold!r} has no effect here: it needs get_actions='threshold' and "
                f"multi-label y, got get_actions={args.get_actions!r} and problem_type={problem_type!r}."
            )
        return policy

    def fit_loop(self, X, y=None, epochs=None, **fit_params):
        """Train on a :class:`TextDataset` as `args` says, or for `epochs` epochs at constant learning rates."""
        X = self.get_dataset(X)
        if isinstance(self.value_model, nn.Module) and isinstance(X, StateDataset):
            raise ValueError(
                "value_model is a torch module, which takes token ids, and with freeze_encoder=True the model is "
                "trained on cached hidden states; set value_model to a fitted regressor or a function of texts, or set "
                "freeze_encoder=False."
            )
        if isinstance(self.value_model, nn.Module) and X.windows is not None:
            raise ValueError(
                "value_model is a torch module, which takes the token ids of whole texts, and with long_texts="
                f"{X.long_texts!r} the model reads long ones in windows; set value_model to a fitted regressor or a "
                'function of texts, or set long_texts="truncate".'
            )
        self.measured_ = []
        self.generator_ = torch.Generator(self.device).manual_seed(self.seed)
        labels = X.layout.label_texts
        self.reference_ = self.values_ = None
        if self.reference_model is not None:
            self.reference_ = compute_reference_probabilities(
                self.reference_model, X.texts, labels, self.module_.config.problem_type
            )
        if self.value_model is not None and not isinstance(self.value_model, nn.Module):
            self.values_ = compute_expected_rewards(self.value_model, X.texts)
        return super().fit_loop(X, y, epochs=epochs, **fit_params)

    def get_iterator(self, dataset, training=False):
        """Return an iterator over optimiser steps for training, and over batches for validation."""
        iterator = super().get_iterator(dataset, training)
        return Steps(iterator) if training else iterator

    # -- one optimiser step -------------------------------------------------------

    def train_step(self, batch, **fit_params):
        """Sample the actions of a step, and update the weights `num_rl_iters` times."""
        self._set_training(True)
        self.disable_dropout()
        step, _ = batch
        rollouts = [self._roll_out(part) for part in step.batches]
        self._set_advantages(rollouts)
        measures = [self._update(rollouts, batch) for _ in range(self.args_.num_rl_iters)]
        if self.scheduler_ is not None:
            self.scheduler_.step()
        means = {name: float(np.mean([measure[name] for measure in measures])) for name in measures[0]}
        loss = means.pop("loss")
        self._record_measures({**_mean_outcome(rollouts), **means})
        width = max(rollout.logits.shape[1] for rollout in rollouts)
        logits = [F.pad(r.logits, (0, width - r.logits.shape[1]), value=-torch.inf) for r in rollouts]
        return {"loss": torch.tensor(loss), "y_pred": torch.cat(logits)}

    def _record_measures(self, values: dict[str, float]) -> None:
        self.measured_ = list(values)
        for name, value in values.items():
            self.history.record_batch(name, value)

    @torch.no_grad()
    def _roll_out(self, batch: Batch) -> Rollout:
        """Sample the actions of a batch and compute their rewards."""
        args = self.args_
        inputs = to_device(batch.inputs, self.device, weight_dtype(self.dtype))
        labels, sample_weight = inputs.pop("labels"), inputs.pop("sample_weight")
        logits = self.logits(inputs, len(batch))
        targets, valid = read_targets(labels, logits, self.module_.config.ignore_index)
        policy = self.policy_(logits, valid)
        sampled = args.get_actions == "bernoulli"
        actions = policy.sample(self.generator_) if sampled else policy.decide(args.threshold)
        focal = focal_weights(policy.probs, targets, args.alpha, args.gamma)
        weights = policy.decisions * (sample_weight if sample_weight.dim() == 2 else sample_weight.unsqueeze(1))
        return Rollout(
            batch=batch,
            inputs=inputs,
            valid=valid,
            actions=actions,
            log_prob=policy.log_prob(actions, args.labels_smoothing),
            focal=policy.to_decisions(focal, actions),
            weights=weights,
            row_weights=weights.sum(1, keepdim=True) / policy.decisions.sum(1, keepdim=True).clamp_min(1),
            rewards=compute_rewards(self.components_, policy.probs, actions, targets, valid),
            reference=self._reference_probabilities(batch, logits),
            logits=logits,
        )

    def _reference_probabilities(self, batch: Batch, logits: Tensor) -> Tensor | None:
        if self.reference_ is None:
            return None
        probabilities = np.take_along_axis(self.reference_[batch.rows], batch.orders, axis=1)
        return torch.from_numpy(probabilities).to(logits)

    @torch.no_grad()
    def _set_advantages(self, rollouts: list[Rollout]) -> None:
        """Set the advantages: reward minus expected reward, which is the value or the mean reward of the step."""
        total = _total_weight(rollouts)
        # As a deviation from the first reward, so that equal rewards have an advantage of exactly 0: Adam normalises
        # gradients, and would amplify a rounding error.
        first = rollouts[0].reward[0]
        mean = first + sum(((r.reward - first) * r.row_weights).sum() for r in rollouts) / total
        for rollout in rollouts:
            if self.values_ is not None:
                expected = torch.from_numpy(self.values_[rollout.batch.rows]).to(rollout.reward).unsqueeze(1)
            else:
                expected = self._values(rollout) if isinstance(self.value_model, nn.Module) else mean
            rollout.advantage = rollout.reward - expected

    def _values(self, rollout: Rollout) -> Tensor:
        """Compute the expected rewards (n, 1) with the value model."""
        with autocast(self.device, self.dtype):
            output = self.value_model_(**rollout.inputs)
        values = getattr(output, "logits", output)
        if isinstance(values, Tensor) and values.dim():
            values = self.group.gather_rows(values, len(rollout.batch))
        if values is not output:  # the mean over the labels, whose order is random
            values = values.masked_fill(~rollout.valid, 0.0).sum(1) / rollout.valid.sum(1).clamp_min(1)
        if not isinstance(values, Tensor) or values.numel() != len(rollout.batch):
            found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"value_model returned {found} for a batch of {len(rollout.batch)} texts; it must return one value for "
                f"each text, of shape ({len(rollout.batch)}, 1), or an output with logits."
            )
        return values.reshape(-1, 1).to(weight_dtype(self.dtype))

    def _update(self, rollouts: list[Rollout], step) -> dict[str, float]:
        """Take a step of the optimisers, and return the measures of the step, as means over its texts."""
        total = _total_weight(rollouts)
        sums: dict[str, float] = {}
        for rollout in rollouts:
            terms, n_clipped = self._terms(rollout)
            terms = {name: term / total for name, term in terms.items()}
            loss = self._loss(terms)
            loss.backward()
            clip_fraction = n_clipped / sum(int((other.weights > 0).sum()) for other in rollouts)
            for name, value in {**terms, "loss": loss, "clip_fraction": clip_fraction}.items():
                value = value.item() if isinstance(value, Tensor) else value
                sums[name] = sums.get(name, 0.0) + value
        self.group.sum_gradients(parameter for _, parameter in self.trained_)
        self.notify("on_grad_computed", named_parameters=self.trained_, batch=step, training=True)
        self._take_step([parameter for _, parameter in self.trained_], self.optimizer_)
        if isinstance(self.value_model, nn.Module):
            self.group.sum_gradients(self.value_model_.parameters())
            self._take_step(self.value_model_.parameters(), self.value_optimizer_)
        return sums

    def _terms(self, rollout: Rollout) -> tuple[dict[str, Tensor], int]:
        """Compute the terms of the loss, as sums over texts, and the number of clipped ratios."""
        args = self.args_
        policy = self.policy_(self.logits(rollout.inputs, len(rollout.batch)), rollout.valid)
        log_prob = policy.log_prob(rollout.actions, args.labels_smoothing)
        policy_loss, clipped = clipped_loss(log_prob, rollout.log_prob, rollout.advantage, args.cliprange)
        weights = rollout.weights
        terms = {
            "policy_loss": (policy_loss * rollout.focal * weights).sum(),
            "entropy": (policy.entropy() * weights).sum(),
        }
        if rollout.reference is not None:
            terms["kl"] = (policy.divergence(rollout.reference) * weights).sum()
        if isinstance(self.value_model, nn.Module):
            terms["value_loss"] = ((self._values(rollout) - rollout.reward).square() * rollout.row_weights).sum()
        return terms, int((clipped & (weights > 0)).sum())

    def _loss(self, terms: dict[str, Tensor]) -> Tensor:
        """Add the terms up to the loss; options at -1 are left out."""
        args = self.args_
        loss = terms["policy_loss"]
        if "value_loss" in terms:
            loss = loss + terms["value_loss"]
        if args.kl_beta > 0:
            loss = loss + args.kl_beta * terms["kl"]
        if args.entropy_beta > 0:
            loss = loss - args.entropy_beta * terms["entropy"]
        return loss


def read_targets(labels: Tensor, logits: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return the true labels (n, labels), as 0 and 1 or probabilities, and the mask of known labels.

    `labels` is (n,) positions of the true labels, or (n, labels).
    """
    if labels.dim() == 1:
        return F.one_hot(labels, logits.shape[1]).to(logits.dtype), torch.ones_like(logits, dtype=torch.bool)
    valid = labels != ignore_index
    return labels.to(logits.dtype).masked_fill(~valid, 0.0), valid


def _total_weight(rollouts: list[Rollout]) -> Tensor:
    total = cast("Tensor", sum(rollout.row_weights.sum() for rollout in rollouts))
    return total.clamp_min(torch.finfo(total.dtype).tiny)


def _mean_outcome(rollouts: list[Rollout]) -> dict[str, float]:
    """Compute the mean rewards and advantages of the texts of a step."""
    names = rollouts[0].rewards
    parts = {f"reward_{name}": torch.cat([rollout.rewards[name] for rollout in rollouts]) for name in names}
    advantage = torch.cat([rollout.advantage for rollout in rollouts])
    reward = torch.cat([rollout.reward for rollout in rollouts])
    means = {name: float(values.mean()) for name, values in {"reward": reward, **parts}.items()}
    return {**means, "advantage": float(advantage.mean()), "advantage_std": float(advantage.std(correction=0))}
