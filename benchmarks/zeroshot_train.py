"""Train the weight delta of the package.

    python benchmarks/zeroshot_train.py --output A                # trains: 20 to 45 minutes
    python benchmarks/zeroshot_train.py --output A --ship 1       # writes the weight delta of the package
    python benchmarks/zeroshot_train.py --output A B --ship 1     # the mean of several runs, such as other seeds

The model is a bi-encoder with all-MiniLM-L6-v2 for texts and labels, and identity projectors. A step takes texts of one
data set of the mixture and some of its labels, each in one of several wordings. The loss is the cross-entropy over
these labels plus a binary cross-entropy of each label on logits with a trained offset, so that a text may have none of
the labels. Token embeddings are frozen, as their delta would dominate the size of the package. ``zeroshot_mixture.py``
has the data sets and wordings, and the model card, ``sklearn_gliclass/weights/README.md``, the results.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel

import common
from zeroshot_mixture import Task, load_mixture

SCALE = 20.0  # logit scale, as in the estimators
WEIGHT_DECAY, WARMUP = 0.01, 0.06
MAX_LENGTH = 128
TEXTS, TOKENS = 32, 2048  # maximum of a batch
MOST_LABELS = 24
BINARY = 0.3  # weight of the binary loss
DISTRACTORS = 5  # texts of other data sets in a batch, without a label
AVERAGE = 0.998  # decay of the moving average of the weights
WEIGHTS_FILE = "encoder.safetensors"


class Sampler:
    """Sampler of batches: labels of one data set, and texts with one of them."""

    def __init__(self, tasks: list[Task], tokenizer, encoder, seed: int):
        self.tasks, self.rng, self.tokenizer = tasks, np.random.RandomState(seed), tokenizer
        self.ids = [tokenize(tokenizer, task.texts) for task in tasks]
        self.share = np.array([task.weight * len(task.texts) ** 0.5 for task in tasks])
        self.share /= self.share.sum()
        self.near = [nearest_labels(task, tokenizer, encoder) for task in tasks]
        self.rows = [[np.flatnonzero(task.targets[:, k]) for k in range(len(task.labels))] for task in tasks]

    def sample(self):
        """Sample token ids of texts and labels, targets (texts, labels), and the number of texts without a label."""
        number = self.rng.choice(len(self.tasks), p=self.share)
        task, ids = self.tasks[number], self.ids[number]
        labels = self._labels(number)
        full = [k for k in labels if len(self.rows[number][k])]
        rows = [self.rng.choice(self.rows[number][self.rng.choice(full)]) for _ in range(4 * TEXTS)]
        rows = sorted(set(rows), key=lambda row: len(ids[row]))
        start = self.rng.randint(max(1, len(rows) - TEXTS + 1))
        rows = rows[start : start + TEXTS]
        rows = rows[: max(8, TOKENS // len(ids[rows[-1]]))]
        targets = task.targets[np.ix_(rows, labels)]
        texts = [ids[row] for row in rows]
        distractors = []
        if self.rng.rand() < 0.5:
            longest = max(map(len, texts))
            other = self.ids[self.rng.choice(len(self.tasks), p=self.share)]
            distractors = [other[self.rng.randint(len(other))][: longest + 8] for _ in range(DISTRACTORS)]
            if other is ids:
                distractors = []
        words = tokenize(self.tokenizer, [task.wording(k, self.rng) for k in labels])
        return texts + distractors, words, targets, len(distractors)

    def _labels(self, number: int) -> np.ndarray:
        """Sample labels of a data set; with a probability of 0.5, similar ones."""
        task = self.tasks[number]
        most = min(len(task.labels), MOST_LABELS)
        n = int(np.clip(np.exp(self.rng.uniform(np.log(2), np.log(most + 1))), 2, most)) if most > 2 else most
        if len(task.labels) <= 6 and self.rng.rand() < 0.5:
            n = len(task.labels)
        if self.rng.rand() < 0.5:
            return self.rng.choice(len(task.labels), n, replace=False)
        near = self.near[number][self.rng.randint(len(task.labels))]
        return self.rng.permutation(near[: 2 * n])[:n] if self.rng.rand() < 0.5 else near[:n]


def tokenize(tokenizer, texts) -> list[list[int]]:
    return tokenizer(list(texts), truncation=True, max_length=MAX_LENGTH)["input_ids"]


def pad(ids) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, ids))
    tokens = torch.tensor([row + [0] * (longest - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
    return tokens, mask


def embed(encoder, ids) -> torch.Tensor:
    """Compute normalised mean-pooled embeddings (texts, hidden)."""
    tokens, mask = pad(ids)
    states = encoder(input_ids=tokens, attention_mask=mask).last_hidden_state.float()
    return F.normalize((states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True), dim=-1)


@torch.no_grad()
def nearest_labels(task: Task, tokenizer, encoder) -> np.ndarray:
    """Return all labels for each label, the most similar first."""
    states = embed(encoder, tokenize(tokenizer, task.labels))
    return (states @ states.T).argsort(dim=1, descending=True).numpy()


def loss_of(encoder, offset, batch) -> torch.Tensor:
    texts, words, targets, n_distractors = batch
    # The math backend of attention is the fastest for short texts in bfloat16, including gradients.
    with torch.autocast("cpu", torch.bfloat16, enabled=BFLOAT16), sdpa_kernel(SDPBackend.MATH):
        states, labels = embed(encoder, texts), embed(encoder, words)
    logits = SCALE * states @ labels.T
    targets = torch.from_numpy(targets).float()
    own = logits[: len(targets)]
    loss = -(own.log_softmax(1) * targets / targets.sum(1, keepdim=True)).sum(1).mean()
    holds = F.pad(targets, (0, 0, 0, n_distractors))
    binary = F.binary_cross_entropy_with_logits(logits - offset, holds, reduction="none")
    # Positives and negatives have the same total weight.
    positive = (binary * holds).sum() / holds.sum().clamp_min(1)
    negative = (binary * (1 - holds)).sum() / (1 - holds).sum().clamp_min(1)
    return loss + BINARY * (positive + negative)


def train(options) -> None:
    from sklearn_gliclass.data.tokenizer import load_tokenizer
    from sklearn_gliclass.model.loading import load_encoder
    from sklearn_gliclass.model.lookup import DEFAULT_ENCODER, find_checkpoint

    torch.manual_seed(options.seed)
    (output,), folder = options.output, find_checkpoint(DEFAULT_ENCODER)
    tokenizer, encoder = load_tokenizer(folder), load_encoder(folder)
    if options.start is not None:
        encoder.load_state_dict(load_file(options.start / WEIGHTS_FILE), strict=False)
    sampler = Sampler(load_mixture(options.data, options.shared), tokenizer, encoder.eval(), options.seed)
    # No dropout, which takes a fifth of the time: a hundred thousand rows in a few epochs are not overfitted.
    encoder.embeddings.requires_grad_(False)
    encoder.pooler.requires_grad_(False)
    offset = torch.nn.Parameter(torch.tensor(6.0))
    trained = [p for p in encoder.parameters() if p.requires_grad]
    decays, others = [p for p in trained if p.dim() > 1], [p for p in trained if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decays, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0},
         {"params": [offset], "weight_decay": 0.0, "lr": 20 * options.lr}], lr=options.lr, fused=True,
    )  # fmt: skip
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (WARMUP * options.steps), 1 - step / options.steps)
    )
    average = {name: p.detach().clone() for name, p in encoder.named_parameters() if p.requires_grad}
    losses, start, log = [], time.perf_counter(), []
    output.mkdir(parents=True, exist_ok=True)
    for step in range(1, options.steps + 1):
        loss = loss_of(encoder, offset, sampler.sample())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        with torch.no_grad():
            for name, p in encoder.named_parameters():
                if p.requires_grad:
                    average[name].lerp_(p, max(1 - AVERAGE, 1 / step))
        if step % options.report == 0 or step == options.steps:
            log.append({"step": step, "loss": float(np.mean(losses[-options.report :])), "offset": offset.item(),
                        "minutes": (time.perf_counter() - start) / 60})  # fmt: skip
            print(json.dumps(log[-1]), flush=True)
            save_file(average, output / WEIGHTS_FILE, metadata={"offset": str(offset.item())})
            (output / "log.json").write_text(json.dumps(log, indent=1))


def ship(options) -> None:
    """Write the weight delta, interpolated between the plain encoder (0) and the mean of the trained ones (1)."""
    from sklearn_gliclass.model.loading import load_encoder
    from sklearn_gliclass.model.lookup import DEFAULT_ENCODER, OWN_WEIGHTS, find_checkpoint
    from sklearn_gliclass.model.weight_delta import write_weight_delta

    base, tuned = (load_encoder(find_checkpoint(DEFAULT_ENCODER)) for _ in range(2))
    runs = [load_file(folder / WEIGHTS_FILE) for folder in options.output]
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if name in runs[0]:
                weight.lerp_(torch.stack([run[name] for run in runs]).mean(dim=0), options.ship)
    OWN_WEIGHTS.parent.mkdir(exist_ok=True)
    write_weight_delta(base, tuned, OWN_WEIGHTS, {"share": str(options.ship), "runs": str(len(runs))})
    print(f"{OWN_WEIGHTS}: {OWN_WEIGHTS.stat().st_size / 2**20:.1f} MiB")


def main(arguments=None):
    global BFLOAT16
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--output", type=Path, nargs="+", required=True, help="folder for the weights and the log; with --ship all runs"
    )
    parser.add_argument("--data", type=Path, default=common.DATA.parent / "zeroshot", help="folder of the mixture")
    parser.add_argument("--shared", type=Path, default=common.DATA, help="folder of the other data sets")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--lr", type=float, default=5e-5, help="peak learning rate")
    parser.add_argument("--start", type=Path, help="continue from the weights in the output folder of another run")
    parser.add_argument("--report", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--ship", type=float, help="interpolation weight from the plain encoder to the trained ones")
    parser.add_argument("--float32", action="store_true", help="no bfloat16, which is fast on processors with AMX")
    options = parser.parse_args(arguments)
    if options.ship is None and len(options.output) > 1:
        folders = " ".join(map(str, options.output))
        parser.error(f"training writes one folder, got --output {folders}; --ship takes several")
    torch.set_num_threads(options.threads)
    BFLOAT16 = not options.float32
    if options.ship is None:
        train(options)
    else:
        ship(options)


BFLOAT16 = True

if __name__ == "__main__":
    main()
