"""Effect of reinforcement learning on nlupp_intents, with 62 labels: about ten minutes on one thread.

A supervised model is trained further by reinforcement learning with the F1 score of each text as reward, by as many
supervised epochs, and with a custom reward (1 for a true label, -2 for a false one).

    python benchmarks/rl.py --data ../shared/data
"""

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import pandas as pd
from sklearn.metrics import f1_score, precision_score, recall_score
from sklearn.preprocessing import MultiLabelBinarizer

import common
from sklearn_gliclass import GLiClassClassifier, RLTrainerConfig


def read(args):
    train, test = (common.read(args, "nlupp_intents", part) for part in ("train", "test"))
    train = train.head(args.rows)
    labels = [text.split("|") if text else [] for text in train["labels"]]
    binarizer = MultiLabelBinarizer().fit(labels)
    columns = [str(name).replace("_", " ") for name in binarizer.classes_]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # labels of the test rows that no training row has
        y_test = binarizer.transform([text.split("|") if text else [] for text in test["labels"]])
    return train["text"], pd.DataFrame(binarizer.transform(labels), columns=columns), test["text"], y_test


def scores(clf, X, y) -> dict[str, float]:
    predicted = clf.predict(X)
    options = {"average": "samples", "zero_division": 1}
    return {
        "F1": f1_score(y, predicted, **options),
        "precision": precision_score(y, predicted, average="samples", zero_division=0),
        "recall": recall_score(y, predicted, **options),
        "labels": predicted.sum(axis=1).mean(),
        "earned": (predicted * y - 2 * predicted * (1 - y)).sum(axis=1).mean(),
    }


def earned(probs, actions, targets, valid_mask):
    """Reward of 1 for each true label and -2 for each false one."""
    return ((actions * targets - 2 * actions * (1 - targets)) * valid_mask).sum(dim=1, keepdim=True)


def run(seed: int, data, args) -> list[dict]:
    X, y, X_test, y_test = data
    rl = RLTrainerConfig(max_epochs=args.more, lr=args.lr, others_lr=args.others_lr)
    fast = RLTrainerConfig(max_epochs=args.more, lr=10 * args.lr, others_lr=10 * args.others_lr)
    rows = []

    def fit(name, **hyperparameters):
        clf = GLiClassClassifier(random_state=seed, **hyperparameters)
        began = time.perf_counter()
        clf.fit(X, y)
        rows.append({"model": name, **scores(clf, X_test, y_test), "seconds": time.perf_counter() - began})
        print(seed, *(value if isinstance(value, str) else f"{value:.3f}" for value in rows[-1].values()), flush=True)
        if clf.rl is not None:
            print("  mean reward per epoch:", [round(reward, 3) for reward in clf.history_[:, "reward"]], flush=True)
        return clf

    with tempfile.TemporaryDirectory() as folder:
        fit("supervised", max_epochs=args.epochs).save_pretrained(folder)
        mine = {"earned": earned}
        fit("+ RL, F1", pretrained=folder, max_epochs=0, rl=rl)
        fit("+ RL, earned", pretrained=folder, max_epochs=0, rl=rl, reward_components=mine)
        fit("+ RL, earned, 10 x rates", pretrained=folder, max_epochs=0, rl=fast, reward_components=mine)
        fit("+ supervised", pretrained=folder, max_epochs=args.more)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=common.DATA, help="folder of nlupp_intents.*.csv.gz")
    parser.add_argument("--rows", type=int, default=200, help="training rows")
    parser.add_argument("--epochs", type=int, default=8, help="supervised epochs first")
    parser.add_argument("--more", type=int, default=3, help="further epochs of each kind")
    parser.add_argument("--lr", type=float, default=RLTrainerConfig.lr, help="of the encoder in RL")
    parser.add_argument("--others-lr", type=float, default=RLTrainerConfig.others_lr, help="of the heads in RL")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    data = read(args)
    rows = [row for seed in range(args.seeds) for row in run(seed, data, args)]
    table = pd.DataFrame(rows)
    means, spread = (getattr(table.groupby("model", sort=False), name)().round(3) for name in ("mean", "std"))
    print(f"\nMeans over {args.seeds} seeds, {args.rows} training rows, {len(data[2])} test rows")
    print(means.to_string())
    print("\nStandard deviations")
    print(spread.to_string())


if __name__ == "__main__":
    main()
