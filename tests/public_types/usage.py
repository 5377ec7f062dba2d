"""User code, which pyright checks in strict mode (`make types`): what users see of the package must have types."""

from typing import Any

import numpy as np
from typing_extensions import assert_type

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor, RLTrainerConfig, TrainingArguments, __version__


def classify(texts: list[str], classes: list[str]) -> "np.ndarray[Any, Any]":
    classifier = GLiClassClassifier(max_epochs=3, lr=1e-4, batch_size=8, label_names=classes, random_state=0)
    fitted = classifier.fit(texts, classes)
    assert_type(fitted, GLiClassClassifier)
    assert_type(fitted.fit(None, classes), GLiClassClassifier)
    assert_type(fitted.partial_fit(texts, classes, classes=classes, sample_weight=[1.0, 2.0]), GLiClassClassifier)
    assert_type(fitted.with_labels(["refund"]), GLiClassClassifier)
    assert_type(fitted.transform(np.array(texts)), "np.ndarray[Any, Any]")
    assert_type(fitted.score(texts, classes), float)
    return fitted.predict_proba(texts)


def save_and_load(classifier: GLiClassClassifier, texts: list[str], classes: list[str]) -> GLiClassClassifier:
    classifier.save_pretrained("folder", metrics={"accuracy": classifier.score(texts, classes)})
    return GLiClassClassifier.from_pretrained("folder", batch_size=4)


def predict_numbers(texts: list[str], numbers: list[float]) -> "np.ndarray[Any, Any]":
    regressor = GLiClassRegressor(max_epochs=3)
    return regressor.fit([{"text": text} for text in texts], numbers).predict(texts)


def configure() -> tuple[str, GLiClassClassifier]:
    arguments, rl = TrainingArguments(max_epochs=2, lr=1e-5), RLTrainerConfig(num_rl_iters=1)
    return __version__, GLiClassClassifier(rl=rl, max_epochs=arguments.max_epochs)
