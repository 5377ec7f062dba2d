"""Train the weight delta of the package, as a mixture of tasks with labels of their own.

    python benchmarks/zeroshot_train.py --output A --minutes 45          # train; the same command resumes
    python benchmarks/zeroshot_train.py --output A B --average 0.5 1     # checkpoints A/average-0.5 and A/average-1
    python benchmarks/zeroshot.py --models plain ours A/average-0.5 --csv A/shares.csv      # what they gain and lose
    python benchmarks/zeroshot_train.py --output A B --ship 0.5          # write the weight delta of the package

The training is a sequence of rounds. Each samples texts of the mixture (``zeroshot_mixture.py``) with candidate labels
in one of several wordings, and fits a ``GLiClassClassifier`` to these dicts, from the checkpoint of the round before.
In three of four rounds one of the labels holds, with a softmax; in the others each label is a decision, and some texts
have none of them: texts of other tasks, and texts whose own label is left out. The learning rate falls to zero over the
rounds, or over the minutes. A round that was interrupted starts again, with the same rows.

At the end, the averaged weights are measured on the held-out sets beside the plain encoder and the weights of the
package, in ``A/zeroshot.csv``, with the sets that lose more than 0.02.

``--average`` interpolates between the start (0) and the moving average of the weights of the training, or its mean over
several output folders (1). Token embeddings are frozen, as their delta would dominate the size of the package. The
model card, ``sklearn_gliclass/weights/README.md``, has the results.
"""

import argparse
import functools
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from skorch.callbacks import Callback

import common
import zeroshot
from sklearn_gliclass import GLiClassClassifier
from sklearn_gliclass.model.loading import load_encoder
from sklearn_gliclass.model.lookup import DEFAULT_ENCODER, OWN_WEIGHTS, find_checkpoint
from sklearn_gliclass.model.weight_delta import write_weight_delta
from zeroshot_mixture import Task, load_mixture

SINGLE, MULTI = "single_label_classification", "multi_label_classification"
GROUP = 16  # texts with the same candidates, half a batch
BATCH = 2 * GROUP
MOST_LABELS = 24
NONE_SHARE, DISTRACTORS = 0.25, 2  # of a group of decisions: texts whose label is left out, and texts of other tasks
EVERY_DECISIONS = 4  # every fourth round has decisions
AVERAGE = 0.998  # decay of the moving average of the weights
AVERAGE_FILE, LOG_FILE, START, ROUND = "average.safetensors", "log.json", "start", "round-{:04d}"


class Sampler:
    """Sampler of texts with candidate labels.

    Parameters
    ----------
    tasks : list of Task
        The mixture.
    encoder : GLiClassClassifier
        Fitted classifier, whose embeddings decide which labels of a task are similar.
    """

    def __init__(self, tasks: list[Task], encoder: GLiClassClassifier):
        self.tasks = tasks
        share = np.array([task.weight * len(task.texts) ** 0.5 for task in tasks])
        self.share = share / share.sum()
        self.near = functools.cache(lambda number: nearest_labels(tasks[number], encoder))
        self.rows = [[np.flatnonzero(column) for column in task.targets.T] for task in tasks]

    def sample(self, n_groups: int, is_exclusive: bool, rng) -> tuple[list[str], list[dict]]:
        """Sample groups of texts with the same candidates, one of which holds if they are exclusive."""
        texts, candidates, spellings = [], [], {}
        while len(texts) < n_groups * GROUP:
            number = rng.choice(len(self.tasks), p=self.share)
            task, labels = self.tasks[number], self._labels(number, rng)
            words = task.wordings_of(labels, rng)
            words = [spellings.setdefault(word.lower(), word) for word in words]  # one class for one label
            if len(set(words)) < len(words):
                continue
            rows = self._rows_with(number, labels, GROUP, rng)
            group = [(task.texts[row], task.targets[row, labels]) for row in rows]
            if is_exclusive:
                group = [(text, values / values.sum()) for text, values in group]
            else:
                others = self._texts_without(number, labels, rng)
                group[: len(others)] = [(text, np.zeros(len(labels))) for text in others]
            texts += [text for text, _ in group]
            candidates += [dict(zip(words, map(float, values), strict=True)) for _, values in group]
        return texts, candidates

    def _labels(self, number: int, rng) -> np.ndarray:
        """Sample labels of a task; with a probability of 0.5, similar ones."""
        task = self.tasks[number]
        most = min(len(task.labels), MOST_LABELS)
        n = int(np.clip(np.exp(rng.uniform(np.log(2), np.log(most + 1))), 2, most)) if most > 2 else most
        if len(task.labels) <= 6 and rng.rand() < 0.5:
            n = len(task.labels)
        if rng.rand() < 0.5:
            return rng.choice(len(task.labels), n, replace=False)
        near = self.near(number)[rng.randint(len(task.labels))]
        return rng.permutation(near[: 2 * n])[:n] if rng.rand() < 0.5 else near[:n]

    def _rows_with(self, number: int, labels, n: int, rng) -> list[int]:
        """Sample rows with one of the labels, balanced, and different ones where there are enough."""
        pools = [rng.permutation(rows) for rows in (self.rows[number][label] for label in labels) if len(rows)]
        order = rng.permutation(len(pools))
        turns = [pools[k][turn % len(pools[k])] for turn in range(n) for k in order]
        distinct = list(dict.fromkeys(turns))
        return [distinct[i % len(distinct)] for i in range(n)]

    def _texts_without(self, number: int, labels, rng) -> list[str]:
        """Sample texts with none of the labels: of the same task, and of others."""
        task = self.tasks[number]
        left_out = np.flatnonzero(~task.targets[:, labels].any(axis=1))
        n = min(len(left_out), rng.binomial(GROUP, NONE_SHARE))
        texts = [task.texts[row] for row in rng.choice(left_out, n, replace=False)] if n else []
        for other in rng.choice(len(self.tasks), DISTRACTORS, p=self.share):
            if other != number:
                texts.append(self.tasks[other].texts[rng.randint(len(self.tasks[other].texts))])
        return texts


def nearest_labels(task: Task, encoder: GLiClassClassifier) -> np.ndarray:
    """Return all labels for each label, the most similar first."""
    states = encoder.transform(task.labels)
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    return (-states @ states.T).argsort(axis=1, kind="stable")


class WeightAverage(Callback):
    """Moving average of the trained weights after each optimiser step.

    Parameters
    ----------
    weights : dict of str to Tensor
        Average of earlier rounds, which is updated in place; empty at first.
    n_steps : int
        Number of optimiser steps of earlier rounds.
    """

    def __init__(self, weights: dict[str, torch.Tensor], n_steps: int):
        self.weights, self.n_steps = weights, n_steps

    @torch.no_grad()
    def on_batch_end(self, net, training=False, **kwargs):
        if not training:
            return
        self.n_steps += 1
        for name, weight in trained_weights(net.module_).items():
            mean = self.weights.setdefault(name, weight.detach().clone())
            mean.lerp_(weight, max(1 - AVERAGE, 1 / self.n_steps))


def trained_weights(model) -> dict[str, torch.Tensor]:
    """Return the weights of the encoder without its token embeddings, by their names in the encoder."""
    return {
        name: weight
        for name, weight in model.model.encoder_model.named_parameters()
        if not name.startswith(("embeddings.", "pooler."))
    }


def train(options) -> None:
    """Run the rounds that are left."""
    (output,) = options.output
    output.mkdir(parents=True, exist_ok=True)
    start = output / START
    if not start.exists():
        write_start(options.start, start)
    folder, log = last_round(output)
    if is_complete(log, options):
        return
    plain = GLiClassClassifier(pretrained=str(start)).fit(None, ["a", "b"])
    sampler = Sampler(options.load(options.data, options.shared), plain)
    while not is_complete(log, options):
        folder, log = train_round(sampler, folder or start, log, output, options)
        print(json.dumps(log[-1]), flush=True)


def train_round(sampler: Sampler, before: Path, log: list[dict], output: Path, options) -> tuple[Path, list[dict]]:
    """Train one round, and replace the folder of the round before by its folder."""
    number, began = len(log), time.perf_counter()
    rng = np.random.RandomState([options.seed, number])
    is_exclusive = number % EVERY_DECISIONS < EVERY_DECISIONS - 1
    texts, candidates = sampler.sample(options.batches * BATCH // GROUP, is_exclusive, rng)
    average = load_file(before / AVERAGE_FILE) if log else {}
    callback = WeightAverage(average, n_steps=sum(row["steps"] for row in log))
    rate = options.lr * (1 - progress(log, options))
    clf = GLiClassClassifier(
        pretrained=str(before), problem_type=SINGLE if is_exclusive else MULTI, batch_size=BATCH, max_epochs=1,
        lr=rate, others_lr=0.0, lr_scheduler_type="constant_with_warmup", freeze_encoder="embeddings", dropout=0.0,
        focal_loss_alpha=None if is_exclusive else 0.8, focal_loss_gamma=None if is_exclusive else 0.0,
        max_length=options.max_length, callbacks=[callback], device="cpu", random_state=number,
    ).fit(texts, candidates)  # fmt: skip
    folder = output / ROUND.format(number)
    shutil.rmtree(folder, ignore_errors=True)  # of an interrupted run, without a log
    clf.set_params(callbacks=None).save_pretrained(folder)
    save_file(average, folder / AVERAGE_FILE)
    row = {
        "round": number, "kind": "classes" if is_exclusive else "decisions", "loss": clf.history_[-1, "train_loss"],
        "lr": rate, "steps": options.batches, "minutes": (time.perf_counter() - began) / 60,
    }  # fmt: skip
    log = [*log, row]
    (folder / LOG_FILE).write_text(json.dumps(log, indent=1), encoding="utf-8")  # last: the round is complete
    if before.name != START:
        shutil.rmtree(before)
    return folder, log


def write_start(name: str, folder: Path) -> None:
    """Write the checkpoint that the training starts from: the package's weights, the plain encoder, or a checkpoint."""
    start = {"ours": {}, "plain": {"encoder_model": DEFAULT_ENCODER}}.get(name, {"pretrained": name})
    clf = GLiClassClassifier(problem_type=MULTI, device="cpu", **start).fit(None, ["a", "b"])
    # Dropout takes a fifth of the time, and texts that are seen once or twice are not overfitted.
    clf.config_.encoder_config.hidden_dropout_prob = clf.config_.encoder_config.attention_probs_dropout_prob = 0.0
    clf.save_pretrained(folder)


def last_round(output: Path) -> tuple[Path | None, list[dict]]:
    """Return the folder and the log of the last complete round of an output folder, or None and an empty log."""
    complete = sorted(output.glob(ROUND[:6] + f"*/{LOG_FILE}"))
    if not complete:
        return None, []
    return complete[-1].parent, json.loads(complete[-1].read_text(encoding="utf-8"))


def progress(log: list[dict], options) -> float:
    """Return the completed fraction of the training."""
    if options.rounds is not None:
        return len(log) / options.rounds
    return min(1.0, sum(row["minutes"] for row in log) / options.minutes)


def is_complete(log: list[dict], options) -> bool:
    """Return whether all rounds are done, or another would end later than half of its time after the minutes."""
    if options.rounds is not None or not log:
        return options.rounds is not None and len(log) >= options.rounds
    minutes = [row["minutes"] for row in log]
    return sum(minutes) + np.mean(minutes) / 2 > options.minutes


def measure(options) -> None:
    """Measure the averaged weights of a training on the held-out sets, and print gains and losses."""
    (output,) = options.output
    path, model = output / "zeroshot.csv", write_average(options.output, 1.0)
    path.unlink(missing_ok=True)  # of fewer rounds
    zeroshot.measure_all(
        argparse.Namespace(
            data=options.shared, sets=zeroshot.HELD_OUT, excluded=False, rows=options.report_rows, csv=path,
            models=["plain", "ours", str(model)],
        )
    )  # fmt: skip
    print(zeroshot.report(pd.read_csv(path)))


def write_average(outputs: list[Path], share: float) -> Path:
    """Write the checkpoint of averaged weights, and return its folder."""
    folder = outputs[0] / f"average-{share:g}"
    averaged(outputs, share).save_pretrained(folder)
    return folder


def averaged(outputs: list[Path], share: float) -> GLiClassClassifier:
    """Return a zero-shot classifier with weights between the start (0) and the mean of the trainings (1)."""
    runs = [load_file(last_round(output)[0] / AVERAGE_FILE) for output in outputs]
    clf = GLiClassClassifier(pretrained=str(outputs[0] / START), device="cpu").fit(None, ["a", "b"])
    with torch.no_grad():
        for name, weight in trained_weights(clf.model_).items():
            weight.lerp_(torch.stack([run[name] for run in runs]).mean(dim=0), share)
    return clf


def ship(outputs: list[Path], share: float, path: Path) -> None:
    """Write the weight delta of averaged weights to the plain encoder."""
    plain = load_encoder(find_checkpoint(DEFAULT_ENCODER))
    tuned = averaged(outputs, share).model_.model.encoder_model
    path.parent.mkdir(exist_ok=True)
    write_weight_delta(plain, tuned, path, {"share": str(share), "runs": str(len(outputs))})
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


def main(arguments=None, load=load_mixture):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--output", type=Path, nargs="+", required=True, help="folder of the training; several for their mean"
    )
    parser.add_argument("--data", type=Path, default=common.DATA.parent / "zeroshot", help="folder of the mixture")
    parser.add_argument("--shared", type=Path, default=common.DATA, help="folder of the other data sets")
    parser.add_argument("--start", default="ours", help="ours (the weights of the package), plain, or a checkpoint")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=45.0, help="length of the training, over all of its runs")
    length.add_argument("--rounds", type=int, help="number of rounds, in place of minutes")
    parser.add_argument("--batches", type=int, default=150, help="optimiser steps of a round")
    parser.add_argument("--lr", type=float, default=3e-5, help="learning rate at the start")
    parser.add_argument("--max-length", type=int, default=128, help="maximum number of tokens of a text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--report-rows", type=int, default=400, help="test rows per held-out set; 0: no report")
    parser.add_argument("--average", type=float, nargs="+", help="write checkpoints of averages, with these weights")
    parser.add_argument("--ship", type=float, help="write the weight delta of an average with this weight")
    options = parser.parse_args(arguments)
    options.load = load
    torch.set_num_threads(options.threads)
    if options.ship is not None:
        ship(options.output, options.ship, OWN_WEIGHTS)
    elif options.average is not None:
        for share in options.average:
            write_average(options.output, share)
    elif len(options.output) > 1:
        folders = " ".join(map(str, options.output))
        parser.error(f"training writes one folder, got --output {folders}; --average and --ship take several")
    else:
        train(options)
        if options.report_rows:
            measure(options)


if __name__ == "__main__":
    main()
