"""RLTrainer: reinforcement learning with a reward, by proximal policy optimisation."""

import copy
from dataclasses import dataclass

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
from .reference_models import fixed_values, reference_probabilities
from .rewards import compute_rewards, read_components
from .trainer import Trainer


class Step:
    """The batches of one optimiser step, where skorch has one batch."""

    last_of_step = True

    def __init__(self, batches: list[Batch]):
        self.batches = batches

    def __len__(self) -> int:
        return sum(map(len, self.batches))


class Steps:
    """What skorch iterates over: the batches of an epoch, step by step."""

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
    """A batch, the labels given to its texts, and what came of it; tensors (n, 1), (n, labels) or (n, decisions)."""

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
    advantage: Tensor | None = None

    @property
    def reward(self) -> Tensor:
        """All components together."""
        return sum(self.rewards.values())


class RecordMeans(Callback):
    """What the steps noted, in the history as means over the epoch's texts."""

    def on_epoch_end(self, net, **kwargs):
        batches = net.history[-1]["batches"]
        for name in net.noted_:
            values, sizes = zip(*((row[name], row["train_batch_size"]) for row in batches if name in row), strict=True)
            net.history.record(name, float(np.average(values, weights=sizes)))


class RLTrainer(Trainer):
    """A skorch net that trains a :class:`~sklearn_gliclass.GLiClassModel` on rewards.

    For each batch labels are given to its texts, as the model's probabilities say. A reward says how good they are,
    and `num_rl_iters` updates make labels with more reward than expected likelier, those with less unlikelier (PPO
    with clipped ratios). Labels decide one by one (multi-label), or one of them is chosen (single-label). Dropout is
    off, so that ratios start at 1. Losses, divergences and entropies are sums over a text's decisions, averaged over
    the texts by their sample weights.

    A reward that is the same for all texts has no advantage over the batch's mean: nothing is learnt from it, and
    only weight decay, entropy and divergence move the weights.

    Parameters
    ----------
    module : GLiClassModel
        The model; it is trained in place.
    args : RLTrainerConfig, optional
        What reinforcement learning is told.
    valid, dtype, seed, callbacks, progress, device, **kwargs
        As in :class:`Trainer`. `seed` is that of the actions, too.
    reward_components : dict or list of (name, function) pairs, optional
        Rewards, which are added up. A function gets four tensors (n, labels), probabilities, labels given, true
        labels and the mask of known ones, and returns a reward for each text, of shape (n, 1). Default: F1 of each
        text. ``sklearn_gliclass.training.rewards`` has more, and ``MetricReward`` for metrics of scikit-learn.
    value_model : torch.nn.Module, fitted regressor or callable, optional
        What reward is to be expected of a text. A module gets the model's inputs and returns (n, 1), or logits whose
        mean counts; a copy of it is trained beside the model, with the same rates. A regressor's ``predict`` or a
        callable gets the texts, once. Default: the batch's mean reward.
    reference_model : fitted GLiClassClassifier, (GLiClassModel, tokenizer) or callable, optional
        The model should not stray far from its probabilities, see `kl_beta`; with ``kl_beta=-1`` the divergence is
        measured only. The pair may have a third part, the tokenizer of the label encoder. A callable gets texts
        and label texts and returns probabilities (n_texts, n_labels).

    Attributes
    ----------
    module_ : GLiClassModel
        The trained model.
    value_model_ : torch.nn.Module
        The trained copy of `value_model`, where that is a module.
    history : skorch.history.History
        Per epoch besides losses and rates: `reward` and `reward_NAME` of each component, `advantage` (mean) and
        `advantage_std`, `policy_loss`, `clip_fraction` (decisions whose ratio left the range), `entropy`, `kl` (with
        a reference), `value_loss` (with a module of values); means over the texts, and over the updates.

    Examples
    --------
    >>> from sklearn_gliclass import GLiClassClassifier, RLTrainerConfig
    >>> from sklearn_gliclass.testing import TINY
    >>> from sklearn_gliclass.training.rewards import precision, recall
    >>> clf = GLiClassClassifier(**TINY, rl=RLTrainerConfig(max_epochs=2), label_names=["sports", "politics"],
    ...                          reward_components=[("precision", precision), ("recall", recall)])
    >>> clf = clf.fit(["goal", "vote", "a goal in the vote"], [[1, 0], [0, 1], [1, 1]])
    >>> clf.n_iter_, len(clf.history_[:, "reward_precision"])     # 5 epochs supervised, 2 on rewards
    (7, 2)
    """

    def __init__(self, module, args=None, valid=None, dtype="float32", seed=0, *, reward_components=None,
                 value_model=None, reference_model=None, **kwargs):  # fmt: skip
        self.reward_components = reward_components
        self.value_model = value_model
        self.reference_model = reference_model
        super().__init__(module, args or RLTrainerConfig(), valid, dtype, seed, **kwargs)

    @property
    def _default_callbacks(self):
        return [*super()._default_callbacks, ("record_means", RecordMeans())]

    # -- before the first step -------------------------------------------------------------------------------

    def initialize_optimizer(self, triggered_directly=None):
        """Build the optimisers of the model and, where it is trained, of the value model."""
        super().initialize_optimizer(triggered_directly)
        self.policy_ = self._check_options()
        self.components_ = read_components(self.reward_components)
        if isinstance(self.value_model, nn.Module):
            self.value_model_ = copy.deepcopy(self.value_model).to(self.device, weight_dtype(self.dtype))
            encoders = self.value_model_.encoder_modules() if hasattr(self.value_model_, "encoder_modules") else []
            self.value_optimizer_ = build_optimizer(self.value_model_, encoders, self.args_)

    def _check_options(self):
        """The policy for the model's problem; an option that would not be read raises."""
        args, problem_type = self.args_, self.module_.config.problem_type
        if not isinstance(args, RLTrainerConfig):
            raise TypeError(f"RLTrainer takes an RLTrainerConfig, got {type(args).__name__}.")
        if problem_type not in POLICIES:
            raise ValueError(
                f"Reinforcement learning gives labels to texts, and this model has problem_type={problem_type!r}; it "
                f"must be one of {sorted(POLICIES)}."
            )
        if args.kl_beta >= 0 and self.reference_model is None:
            raise ValueError(
                f"kl_beta={args.kl_beta!r} is the factor of the divergence from a reference model, and "
                "reference_model is None; give one, or leave kl_beta=-1."
            )
        policy = POLICIES[problem_type]
        if args.threshold != RLTrainerConfig.threshold and (
            args.get_actions != "threshold" or problem_type == "single_label_classification"
        ):
            raise ValueError(
                f"threshold={args.threshold!r} has no effect here: it is read where get_actions='threshold' and y is "
                f"multi-label, and here get_actions={args.get_actions!r} and problem_type={problem_type!r}."
            )
        return policy

    def fit_loop(self, X, y=None, epochs=None, **fit_params):
        """Train on a :class:`TextDataset` as `args` says, or for `epochs` more at constant rates."""
        X = self.get_dataset(X)
        if isinstance(self.value_model, nn.Module) and isinstance(X, StateDataset):
            raise ValueError(
                "value_model is a torch module, which reads token ids, and with freeze_encoder=True the training reads "
                "encoder states; give a fitted regressor or a function of texts as value_model, or set "
                "freeze_encoder=False."
            )
        self.noted_ = []
        self.generator_ = torch.Generator(self.device).manual_seed(self.seed)
        labels = X.layout.label_texts
        self.reference_ = self.values_ = None
        if self.reference_model is not None:
            self.reference_ = reference_probabilities(
                self.reference_model, X.texts, labels, self.module_.config.problem_type
            )
        if self.value_model is not None and not isinstance(self.value_model, nn.Module):
            self.values_ = fixed_values(self.value_model, X.texts)
        return super().fit_loop(X, y, epochs=epochs, **fit_params)

    def get_iterator(self, dataset, training=False):
        """The batches of a step together; for validation as in :class:`Trainer`."""
        iterator = super().get_iterator(dataset, training)
        return Steps(iterator) if training else iterator

    # -- a step: give labels, see the rewards, improve -------------------------------------------------------

    def train_step(self, batch, **fit_params):
        """Give labels to the texts of a step, and `num_rl_iters` updates of the weights."""
        self._set_training(True)
        self.rest()
        step, _ = batch
        rollouts = [self._roll_out(part) for part in step.batches]
        self._set_advantages(rollouts)
        measures = [self._update(rollouts, batch) for _ in range(self.args_.num_rl_iters)]
        if self.scheduler_ is not None:
            self.scheduler_.step()
        means = {name: float(np.mean([measure[name] for measure in measures])) for name in measures[0]}
        loss = means.pop("loss")
        self._note({**_outcome(rollouts), **means})
        width = max(rollout.logits.shape[1] for rollout in rollouts)
        logits = [F.pad(r.logits, (0, width - r.logits.shape[1]), value=-torch.inf) for r in rollouts]
        return {"loss": torch.tensor(loss), "y_pred": torch.cat(logits)}

    def _note(self, values: dict[str, float]) -> None:
        self.noted_ = list(values)
        for name, value in values.items():
            self.history.record_batch(name, value)

    @torch.no_grad()
    def _roll_out(self, batch: Batch) -> Rollout:
        """Give labels to the texts of a batch."""
        args = self.args_
        inputs = to_device(batch.inputs, self.device, weight_dtype(self.dtype))
        labels, sample_weight = inputs.pop("labels"), inputs.pop("sample_weight")
        logits = self.logits(inputs)
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
            focal=policy.of_decisions(focal, actions),
            weights=weights,
            row_weights=weights.sum(1, keepdim=True) / policy.decisions.sum(1, keepdim=True).clamp_min(1),
            rewards=compute_rewards(self.components_, policy.probs, actions, targets, valid),
            reference=self._reference_of(batch, logits),
            logits=logits,
        )

    def _reference_of(self, batch: Batch, logits: Tensor) -> Tensor | None:
        if self.reference_ is None:
            return None
        probabilities = np.take_along_axis(self.reference_[batch.rows], batch.orders, axis=1)
        return torch.from_numpy(probabilities).to(logits)

    @torch.no_grad()
    def _set_advantages(self, rollouts: list[Rollout]) -> None:
        """Reward minus what was to be expected: the values, or the mean reward of the step."""
        total = _total_weight(rollouts)
        # From the first on, so that the mean of equal rewards is exactly that: Adam would enlarge a rounding error.
        first = rollouts[0].reward[0]
        mean = first + sum(((r.reward - first) * r.row_weights).sum() for r in rollouts) / total
        for rollout in rollouts:
            if self.values_ is not None:
                expected = torch.from_numpy(self.values_[rollout.batch.rows]).to(rollout.reward).unsqueeze(1)
            else:
                expected = self._values(rollout) if isinstance(self.value_model, nn.Module) else mean
            rollout.advantage = rollout.reward - expected

    def _values(self, rollout: Rollout) -> Tensor:
        """The value model's expectation (n, 1)."""
        with autocast(self.device, self.dtype):
            output = self.value_model_(**rollout.inputs)
        values = getattr(output, "logits", output)
        if values is not output:  # the labels stand in random order: no column is special
            values = values.masked_fill(~rollout.valid, 0.0).sum(1) / rollout.valid.sum(1).clamp_min(1)
        if not isinstance(values, Tensor) or values.numel() != len(rollout.batch):
            found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"value_model returned {found} for a batch of {len(rollout.batch)} texts; it must return one value for "
                f"each, of shape ({len(rollout.batch)}, 1), or an output with logits."
            )
        return values.reshape(-1, 1).to(weight_dtype(self.dtype))

    def _update(self, rollouts: list[Rollout], step) -> dict[str, float]:
        """One step of the optimisers; the measures of the step, means over its texts."""
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
        self.notify("on_grad_computed", named_parameters=self.trained_, batch=step, training=True)
        self._take_step([parameter for _, parameter in self.trained_], self.optimizer_)
        if isinstance(self.value_model, nn.Module):
            self._take_step(self.value_model_.parameters(), self.value_optimizer_)
        return sums

    def _terms(self, rollout: Rollout) -> tuple[dict[str, Tensor], int]:
        """The sums that the loss is made of, and how many ratios left the range."""
        args = self.args_
        policy = self.policy_(self.logits(rollout.inputs), rollout.valid)
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
        """What is minimised; an option at -1 is not in it."""
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
    """True labels (n, labels), 0 or 1 or shares, and the mask of those that are known.

    `labels` is (n,) positions of the one true label, or (n, labels).
    """
    if labels.dim() == 1:
        return F.one_hot(labels, logits.shape[1]).to(logits.dtype), torch.ones_like(logits, dtype=torch.bool)
    valid = labels != ignore_index
    return labels.to(logits.dtype).masked_fill(~valid, 0.0), valid


def _total_weight(rollouts: list[Rollout]) -> Tensor:
    total = sum(rollout.row_weights.sum() for rollout in rollouts)
    return total.clamp_min(torch.finfo(total.dtype).tiny)


def _outcome(rollouts: list[Rollout]) -> dict[str, float]:
    """Mean rewards and advantages of a step's texts."""
    names = rollouts[0].rewards
    parts = {f"reward_{name}": torch.cat([rollout.rewards[name] for rollout in rollouts]) for name in names}
    advantage = torch.cat([rollout.advantage for rollout in rollouts])
    reward = torch.cat([rollout.reward for rollout in rollouts])
    means = {name: float(values.mean()) for name, values in {"reward": reward, **parts}.items()}
    return {**means, "advantage": float(advantage.mean()), "advantage_std": float(advantage.std(correction=0))}
