"""Sample and class weights in all losses, in `score`, and with metadata routing."""

import functools

import numpy as np
import pytest
from library_versions import is_scikit_learn_older_than
from sampling import sampled
from sklearn import config_context
from sklearn.base import clone
from sklearn.metrics import accuracy_score, make_scorer, r2_score
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor
from sklearn_gliclass.targets import class_sample_weight, read_class_targets
from sklearn_gliclass.testing import TINY

# For exact comparisons of sums: double precision, one batch, no randomness.
EXACT = {**TINY, "dtype": "float64", "shuffle_labels": False, "batch_size": 100, "max_epochs": 2, "random_state": 0}
TEXTS = np.array(["a late goal", "a new law", "the match", "a vote", "goals", "laws and votes"])
SINGLE = np.array(["sports", "politics", "sports", "politics", "sports", "other"])
MULTI = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 1], [0, 1, -100], [0, 0, 0], [1, 1, 1]])
SOFT = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [1, 0, 0], [0, 0.5, 0.5], [0.25, 0.25, 0.5], [0, 0, 1]])
VALUES = np.array([10.0, -3.0, 12.5, 4.0, 9.0, -8.5])
REPEATS = np.array([1, 2, 1, 3, 1, 2])

PROBLEMS = {
    "single-label": (GLiClassClassifier(**EXACT), SINGLE),
    "single-label balanced": (GLiClassClassifier(**EXACT, class_weight="balanced"), SINGLE),
    "multi-label": (GLiClassClassifier(**EXACT), MULTI),
    "multi-label sum": (GLiClassClassifier(**EXACT, focal_loss_reduction="sum"), MULTI),
    "multi-label balanced": (GLiClassClassifier(**EXACT, class_weight="balanced"), MULTI),
    "soft labels": (GLiClassClassifier(**EXACT), SOFT),
    "soft labels balanced": (GLiClassClassifier(**EXACT, class_weight="balanced"), SOFT),
    "regression": (GLiClassRegressor(**EXACT), VALUES),
    "regression of two": (GLiClassRegressor(**EXACT), np.c_[VALUES, VALUES**2]),
    "contrastive": (GLiClassClassifier(**EXACT, contrastive_loss_coef=0.5), SINGLE),
    "without text contrast": (GLiClassClassifier(**EXACT, text_contrastive_loss_coef=0), SINGLE),
    "every layer": (GLiClassClassifier(**EXACT, layer_wise=True), SINGLE),
}


# Without a sum over the rows, where a constant factor of the weights is one of the loss.
MEANS = [name for name in PROBLEMS if name != "multi-label sum"]
# Each loss with an encoder that reads labels and text together; the weights enter after the encoders.
CASES = [(name, "bi-encoder") for name in PROBLEMS]
UNI = ("single-label", "multi-label balanced", "soft labels", "regression", "contrastive")
CASES += [pytest.param(name, "uni-encoder", marks=[] if name in UNI else pytest.mark.full) for name in PROBLEMS]


def outputs(estimator):
    """Return the decision values or predictions of the texts."""
    method = "decision_function" if hasattr(estimator, "decision_function") else "predict"
    return getattr(estimator, method)(TEXTS)


@functools.cache
def fitted_outputs(name, is_weighted=False, architecture="bi-encoder"):
    """Fit a problem, with the numbers of repeats as weights or without weights."""
    estimator, y = PROBLEMS[name]
    estimator = clone(estimator).set_params(architecture_type=architecture)
    return outputs(estimator.fit(TEXTS, y, sample_weight=REPEATS if is_weighted else None))


@pytest.mark.parametrize(("name", "architecture"), CASES)
def test_weight_of_two_equals_a_duplicated_row(name, architecture):
    estimator, y = PROBLEMS[name]
    estimator = clone(estimator).set_params(architecture_type=architecture)
    weighted = fitted_outputs(name, True, architecture)
    repeated = estimator.fit(np.repeat(TEXTS, REPEATS), np.repeat(y, REPEATS, axis=0))
    np.testing.assert_allclose(weighted, outputs(repeated), rtol=1e-6, atol=1e-8)
    assert not np.allclose(weighted, fitted_outputs(name, False, architecture))


@pytest.mark.parametrize("name", PROBLEMS)
def test_all_ones_equal_none(name):
    estimator, y = PROBLEMS[name]
    found = outputs(clone(estimator).fit(TEXTS, y, sample_weight=np.ones(6)))
    np.testing.assert_array_equal(found, fitted_outputs(name))


@pytest.mark.parametrize("weight", [np.ones(6, dtype=int), [1.0] * 6, 1], ids=["integers", "list", "scalar"])
def test_forms_of_weights_are_equal(weight):
    estimator, y = PROBLEMS["single-label"]
    found = outputs(clone(estimator).fit(TEXTS, y, sample_weight=weight))
    np.testing.assert_array_equal(found, fitted_outputs("single-label"))


@pytest.mark.parametrize("name", MEANS)
def test_scale_of_the_weights_does_not_matter(name):
    estimator, y = PROBLEMS[name]
    sevens = outputs(clone(estimator).fit(TEXTS, y, sample_weight=7.0 * REPEATS))
    np.testing.assert_allclose(fitted_outputs(name, True), sevens, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", PROBLEMS)
def test_weight_of_zero_equals_an_absent_row(name):
    """It has no effect on classes, vocabulary and standardisation either."""
    estimator, y = PROBLEMS[name]
    weight = np.array([1, 1, 1, 1, 1, 0])
    weighted = clone(estimator).fit(TEXTS, y, sample_weight=weight)
    absent = clone(estimator).fit(TEXTS[:5], y[:5])
    np.testing.assert_allclose(outputs(weighted), outputs(absent), rtol=1e-6, atol=1e-8)
    assert weighted.label_names_ == absent.label_names_


@pytest.mark.parametrize("name", sampled(MEANS, 6))
def test_batches_and_accumulation_take_weights_too(name):
    """Results differ from those of one batch, but do not depend on a constant factor of the weights."""
    estimator, y = PROBLEMS[name]
    estimator = clone(estimator).set_params(batch_size=2, gradient_accumulation_steps=2)
    plain = outputs(clone(estimator).fit(TEXTS, y))
    threes = outputs(clone(estimator).fit(TEXTS, y, sample_weight=np.full(6, 3.0)))
    np.testing.assert_allclose(threes, plain, rtol=1e-6, atol=1e-8)
    assert not np.allclose(plain, fitted_outputs(name))


@pytest.mark.parametrize("name", ["single-label", "multi-label", "soft labels", "regression"])
def test_accumulated_step_equals_one_batch(name):
    """Three accumulated batches of two equal one batch of six, for any weights."""
    estimator, y = PROBLEMS[name]
    if name == "single-label":  # the contrastive loss compares texts within a batch
        estimator = clone(estimator).set_params(text_contrastive_loss_coef=0)
    whole = clone(estimator).fit(TEXTS, y, sample_weight=REPEATS)
    parts = clone(estimator).set_params(batch_size=2, gradient_accumulation_steps=3)
    parts.fit(TEXTS, y, sample_weight=REPEATS)
    np.testing.assert_allclose(outputs(parts), outputs(whole), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.zeros(6), "All sample weights are 0|at least one non-zero"),
        (-np.ones(6), "Negative values"),
        (np.ones(5), r"sample_weight.shape == \(5,\), expected \(6,\)"),
        (np.ones((6, 2)), "1D array or scalar"),
        ([1, 1, 1, 1, 1, np.nan], "contains NaN"),
        ([0, 1, 0, 1, 0, 0], "only one class: 'politics'"),
    ],
)
def test_invalid_weights_raise(weight, message):
    with pytest.raises(ValueError, match=message):
        GLiClassClassifier(**EXACT).fit(TEXTS, SINGLE, sample_weight=weight)


# -- class_weight ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_weight", ["balanced", {"sports": 1.0, "politics": 2.5, "other": 0.5}])
def test_class_weights_are_the_sample_weights_that_scikit_learn_makes_of_them(class_weight):
    weighted = GLiClassClassifier(**EXACT, class_weight=class_weight).fit(TEXTS, SINGLE)
    by_sample = GLiClassClassifier(**EXACT).fit(
        TEXTS, SINGLE, sample_weight=compute_sample_weight(class_weight, SINGLE)
    )
    np.testing.assert_allclose(outputs(weighted), outputs(by_sample), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("sample_weight", [np.ones(6), REPEATS.astype(float)])
def test_balanced_weights_of_single_labels(sample_weight):
    targets = read_class_targets(SINGLE)
    of_class = compute_class_weight("balanced", classes=targets.classes, y=np.repeat(SINGLE, sample_weight.astype(int)))
    np.testing.assert_allclose(
        class_sample_weight(targets, "balanced", sample_weight), sample_weight * of_class[targets.array]
    )


def test_balanced_weights_of_multi_labels():
    """Each column is a binary problem, in which unknown labels do not count."""
    weights = class_sample_weight(read_class_targets(MULTI), "balanced", np.ones(6))
    for column, found in zip(MULTI.T, weights.T, strict=True):
        known = column != -100
        np.testing.assert_allclose(found[known], compute_sample_weight("balanced", column[known]))


def test_balanced_weights_of_soft_labels_agree_with_those_of_hard_ones():
    hard = read_class_targets(SINGLE)
    soft = read_class_targets(np.eye(3)[hard.array], "single_label_classification")
    np.testing.assert_allclose(
        class_sample_weight(soft, "balanced", REPEATS), class_sample_weight(hard, "balanced", REPEATS)
    )


def test_class_weights_by_name():
    multi, soft = read_class_targets(MULTI), read_class_targets(SOFT)
    class_weight, of_class = {0: 2.0, 1: 3.0, 2: 0.5}, np.array([2.0, 3.0, 0.5])
    np.testing.assert_allclose(
        class_sample_weight(multi, class_weight, REPEATS),
        REPEATS[:, None] * np.where(MULTI == 1, of_class, 1.0) * (MULTI != -100),
    )
    np.testing.assert_allclose(class_sample_weight(soft, class_weight, REPEATS), REPEATS * (SOFT @ of_class))


def test_class_weights_of_unknown_classes_raise():
    with pytest.raises(ValueError, match="are not in class_weight"):
        GLiClassClassifier(**EXACT, class_weight={"sport": 2.0, "law": 1.0}).fit(TEXTS, SINGLE)


# -- score and routing -------------------------------------------------------------------------------------------


def test_score_weights_the_rows():
    classifier = GLiClassClassifier(**EXACT).fit(TEXTS, SINGLE)
    regressor = GLiClassRegressor(**EXACT).fit(TEXTS, VALUES)
    assert classifier.score(TEXTS, SINGLE, sample_weight=REPEATS) == pytest.approx(
        accuracy_score(SINGLE, classifier.predict(TEXTS), sample_weight=REPEATS)
    )
    assert regressor.score(TEXTS, VALUES, sample_weight=REPEATS) == pytest.approx(
        r2_score(VALUES, regressor.predict(TEXTS), sample_weight=REPEATS)
    )


FOLDS = [(np.array([0, 1, 2, 3]), np.array([4, 5])), (np.array([2, 3, 4, 5]), np.array([0, 1]))]
RANDOM_WEIGHT = np.array([0.5, 2.0, 1.0, 3.0, 0.1, 2.0])


def weighted_scores(estimator, y):
    """Compute the scores of the folds explicitly."""
    scores = []
    for train, test in FOLDS:
        fitted = clone(estimator).fit(TEXTS[train], y[train], sample_weight=RANDOM_WEIGHT[train])
        scores.append(fitted.score(TEXTS[test], y[test], sample_weight=RANDOM_WEIGHT[test]))
    return scores


@pytest.mark.parametrize(
    ("estimator", "y"),
    [(GLiClassClassifier(**EXACT), np.array([0, 1] * 3)), (GLiClassRegressor(**EXACT), VALUES)],
    ids=["classifier", "regressor"],
)
def test_metadata_routing_passes_the_weights(estimator, y):
    with config_context(enable_metadata_routing=True):
        estimator = clone(estimator).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        pipeline = make_pipeline(FunctionTransformer(), estimator)
        grid = {"lr": [1e-4, 5e-3]}
        expected = [weighted_scores(clone(estimator).set_params(lr=lr), y) for lr in grid["lr"]]

        estimator.set_params(lr=grid["lr"][0])
        routed = cross_validate(estimator, TEXTS, y, cv=FOLDS, params={"sample_weight": RANDOM_WEIGHT})
        assert routed["test_score"].tolist() == pytest.approx(expected[0])

        search = GridSearchCV(estimator, grid, cv=FOLDS, refit=False).fit(TEXTS, y, sample_weight=RANDOM_WEIGHT)
        assert search.cv_results_["mean_test_score"].tolist() == pytest.approx(np.mean(expected, axis=1))

        if is_scikit_learn_older_than("1.8"):
            pytest.skip("a search does not route to the score method of a pipeline")
        piped = GridSearchCV(pipeline, {f"{type(estimator).__name__.lower()}__lr": grid["lr"]}, cv=FOLDS, refit=False)
        piped.fit(TEXTS, y, sample_weight=RANDOM_WEIGHT)
        assert piped.cv_results_["mean_test_score"].tolist() == pytest.approx(np.mean(expected, axis=1))


def test_scorer_can_ask_for_weights():
    with config_context(enable_metadata_routing=True):
        classifier = GLiClassClassifier(**EXACT).set_fit_request(sample_weight=False)
        scorer = make_scorer(accuracy_score).set_score_request(sample_weight=True)
        routed = cross_validate(
            classifier, TEXTS, [0, 1] * 3, cv=FOLDS, scoring=scorer, params={"sample_weight": RANDOM_WEIGHT}
        )
        y = np.array([0, 1] * 3)
        expected = [
            clone(classifier).fit(TEXTS[train], y[train]).score(TEXTS[test], y[test], RANDOM_WEIGHT[test])
            for train, test in FOLDS
        ]
        assert routed["test_score"].tolist() == pytest.approx(expected)
