"""benchmarks/zeroshot.py: scores of zero-shot classification, and the tables of gains and losses."""

import numpy as np
import pandas as pd

import zeroshot

CLASSES = ["a", "b", "c", "d"]


class Known:
    """Classifier that knows the class of each text, with a probability of 0.7, and finds one of two unknown classes."""

    def set_params(self, unknown_label):
        self.unknown = unknown_label
        return self

    def fit(self, X, y):
        self.classes = list(y)
        return self

    def predict_proba(self, X):
        return np.array([[0.7 if name == text else 0.1 for name in self.classes] for text in X])

    def predict(self, X):
        return np.array([text if text in self.classes else self.unknown if text == "b" else "a" for text in X])


def test_scores_of_a_classifier(monkeypatch):
    monkeypatch.setattr(zeroshot, "classifier", lambda model: Known())
    found = zeroshot.run(CLASSES, np.array(CLASSES), "any")
    assert float(found["macro_f1"]) == float(found["accuracy"]) == 1
    assert float(found["log_loss"]) == round(-np.log(0.7), 4)
    assert float(found["ece"]) == 0.3
    assert float(found["none_f1"]) == round(2 / 3, 4)  # precision 1, recall 0.5 of b and d
    assert "none_f1" not in zeroshot.run(["a", "b"], np.array(["a", "b"]), "any")


def test_table_shows_gains_and_losses():
    scores = {"plain": (0.50, 0.60), "ours": (0.60, 0.50), "new": (0.55, 0.61)}
    rows = [
        {"set": name, "model": model, "macro_f1": values[k], "accuracy": 0.5, "log_loss": 1, "ece": 0, "none_f1": None}
        for k, name in enumerate(["snips", "clinc150"])
        for model, values in scores.items()
    ]
    results = pd.DataFrame(rows)
    against_plain = zeroshot.differences(results, "plain")
    assert "| snips | 0.500 | +0.100 | +0.050 | 0.500 | +0.000 | +0.000 |" in against_plain
    assert "| **mean** | 0.500 | +0.100 | +0.050 |" in against_plain  # clinc150 was trained on
    assert against_plain.endswith("* clinc150: ours -0.100 macro_f1")
    against_ours = zeroshot.differences(results, "ours")
    assert against_ours.endswith("* snips: new -0.050 macro_f1")
    assert "| new | 0.550 | 0.500 |" in zeroshot.table(results)
    assert "No other model" in zeroshot.differences(results[results["model"] == "plain"], "plain")
