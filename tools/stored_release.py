"""Store tiny estimators of this release in tests/data, where the tests of later releases load them.

Run it once per release: `python tools/stored_release.py`.
"""

import json
from pathlib import Path

import numpy as np

import sklearn_gliclass
from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor
from sklearn_gliclass.testing import TINY, TINY_BERT

FOLDER = Path(__file__).parent.parent / "tests" / "data" / f"release_{sklearn_gliclass.__version__}"
TEXTS = ["a late goal", "the striker scores", "a vote on the law", "the minister resigns"]
SMALL = {**TINY, "encoder_config": {**TINY_BERT, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}}


def main():
    classes = ["sports", "sports", "politics", "politics"]
    clf = GLiClassClassifier(**SMALL, random_state=0).fit(TEXTS, classes)
    reg = GLiClassRegressor(**SMALL, random_state=0).fit(TEXTS, np.array([1.0, 2.0, 3.0, 4.0]))
    clf.save_pretrained(FOLDER / "classifier", metrics={"accuracy": clf.score(TEXTS, classes)})
    reg.save_pretrained(FOLDER / "regressor")
    expected = {
        "texts": TEXTS,
        "classes": clf.classes_.tolist(),
        "probabilities": clf.predict_proba(TEXTS).tolist(),
        "embeddings": clf.transform(TEXTS).tolist(),
        "predictions": reg.predict(TEXTS).tolist(),
    }
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
