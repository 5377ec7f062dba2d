"""The default fit without one of its ingredients each, as methods of quality.py.

* ``no_probe``: fine-tuning of all parameters from the label names, without a label probe, an average or a calibration.
* ``no_names``: the texts move towards the labels of the probe, not halfway towards their names.
* ``no_average``: the trained weights alone, not averaged with those before.
* ``no_calibration``: the logit scale of the training.

``zero_shot``, ``ours_fast`` and ``plain`` of ``quality_methods.py`` belong to these: nothing trained, the label probe
alone, and all without the weight delta of the package.
"""

from unittest import mock

from quality_methods import Result, ours
from quality_sets import Split

RECIPE, STAGES = "sklearn_gliclass.training.recipe", "sklearn_gliclass.training.stages"


def no_probe(split: Split, seed: int) -> Result | None:
    return _patched(f"{RECIPE}._reads_separately", lambda estimator, config: False, split, seed)


def no_names(split: Split, seed: int) -> Result | None:
    return _patched(f"{STAGES}.halfway", lambda labels, names: labels, split, seed)


def no_average(split: Split, seed: int) -> Result | None:
    return _patched(f"{STAGES}.fine_tuned_share", lambda *rows: 1.0, split, seed)


def no_calibration(split: Split, seed: int) -> Result | None:
    return None if split.task != "single-label" else ours(split, seed, calibrate=False)


def _patched(name: str, function, split: Split, seed: int) -> Result | None:
    if split.task != "single-label":
        return None
    with mock.patch(name, function):
        return ours(split, seed)


INGREDIENTS = {
    "no_probe": no_probe,
    "no_names": no_names,
    "no_average": no_average,
    "no_calibration": no_calibration,
}
