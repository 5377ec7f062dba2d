"""Compatibility with scikit-learn's meta-estimators, tools and displays, and copies."""

import copy
import functools
import pickle

import joblib
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from scipy.stats import loguniform
from sklearn import metrics, model_selection
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV, CalibrationDisplay
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import (
    BaggingClassifier,
    HistGradientBoostingClassifier,
    StackingClassifier,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    HalvingRandomSearchCV,
    LearningCurveDisplay,
    TunedThresholdClassifierCV,
    ValidationCurveDisplay,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.utils import estimator_html_repr
from skorch import callbacks

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor
from sklearn_gliclass.testing import TINY

matplotlib.use("Agg")

TEXTS = [f"{word} {topic}" for topic in ("goal match player", "vote law minister") for word in "abcdefgh"]
Y = np.repeat(["sports", "politics"], 8)
Y3 = np.array(["sports"] * 6 + ["politics"] * 6 + ["other"] * 4)
VALUES = np.where(Y == "sports", 100.0, -100.0)
TABLE = pd.DataFrame(
    {"title": TEXTS, "kind": pd.Categorical(["x", "y"] * 8), "year": [1990.0 + i for i in range(15)] + [None]}
)
PARAMETERS = {**TINY, "max_epochs": 2, "random_state": 0}
CLASSIFIER = GLiClassClassifier(**PARAMETERS)
REGRESSOR = GLiClassRegressor(**PARAMETERS)
LEARNING = {"max_epochs": 15, "lr": 5e-3, "others_lr": 5e-3}  # enough to separate the two topics


@pytest.fixture(scope="module")
def fitted():
    return clone(CLASSIFIER).set_params(**LEARNING).fit(TEXTS, Y)


@pytest.fixture(scope="module")
def fitted_regressor():
    return clone(REGRESSOR).fit(TEXTS, VALUES)


# -- model selection ---------------------------------------------------------------------------------------------


def test_cross_validate_returns_scores_and_estimators():
    result = model_selection.cross_validate(
        CLASSIFIER, TEXTS, Y, cv=2, scoring=["accuracy", "roc_auc", "neg_log_loss"], return_estimator=True
    )
    assert result["test_accuracy"].shape == (2,)
    assert ((result["test_roc_auc"] >= 0) & (result["test_roc_auc"] <= 1)).all()
    assert (result["test_neg_log_loss"] < 0).all()
    assert all(estimator.classes_.tolist() == ["politics", "sports"] for estimator in result["estimator"])


@pytest.mark.parametrize(
    ("method", "shape"), [("predict", (16,)), ("predict_proba", (16, 3)), ("decision_function", (16, 3))]
)
def test_cross_val_predict_fits_a_clone_for_each_fold(method, shape):
    """The rows of each fold are predicted by a clone that was fitted on the others.

    For probabilities, scikit-learn passes encoded classes, whose names are in `label_names`.
    """
    named = clone(CLASSIFIER).set_params(label_names=sorted(set(Y3)), max_epochs=1)
    folds = model_selection.StratifiedKFold(2)
    predicted = model_selection.cross_val_predict(named, TEXTS, Y3, cv=folds, method=method)
    assert predicted.shape == shape
    texts = np.array(TEXTS)
    for train, test in folds.split(TEXTS, Y3):
        by_hand = getattr(clone(named).fit(texts[train], Y3[train]), method)(texts[test])
        np.testing.assert_array_equal(predicted[test], by_hand)


def test_grid_search_over_scorers():
    grid = {"scorer_type": ["simple", "mlp", "hopfield"]}
    search = GridSearchCV(CLASSIFIER, grid, cv=2, error_score="raise").fit(TEXTS, Y)
    scores = search.cv_results_["mean_test_score"]
    assert scores.shape == (3,)
    assert search.best_score_ == scores.max()
    by_hand = clone(CLASSIFIER).set_params(**search.best_params_).fit(TEXTS, Y)
    np.testing.assert_array_equal(search.predict_proba(TEXTS), by_hand.predict_proba(TEXTS))


def test_halving_random_search_halves_the_candidates():
    search = HalvingRandomSearchCV(
        CLASSIFIER,
        {"lr": loguniform(1e-4, 1e-2)},
        n_candidates=4,
        factor=2,
        min_resources=8,
        cv=2,
        random_state=0,
    ).fit(np.array(TEXTS), Y)
    assert search.n_candidates_ == [4, 2]
    assert search.n_resources_[0] == 8
    assert 1e-4 <= search.best_params_["lr"] <= 1e-2


def test_learning_and_validation_curves():
    sizes, train, test = model_selection.learning_curve(
        CLASSIFIER, TEXTS, Y, train_sizes=[4, 8], cv=2, shuffle=True, random_state=0, error_score="raise"
    )
    assert sizes.tolist() == [4, 8]
    assert train.shape == test.shape == (2, 2)
    train, test = model_selection.validation_curve(
        CLASSIFIER, TEXTS, Y, param_name="max_epochs", param_range=[0, 2], cv=2
    )
    assert ((test >= 0) & (test <= 1)).all()
    assert train.shape == (2, 2)


def test_incremental_learning_curve_is_finite():
    sizes, train, _ = model_selection.learning_curve(
        CLASSIFIER, TEXTS, Y, train_sizes=[4, 8], cv=2, exploit_incremental_learning=True, shuffle=True, random_state=0
    )
    assert sizes.tolist() == [4, 8]
    assert np.isfinite(train).all()


def test_permutation_test_returns_scores():
    score, of_permutations, p_value = model_selection.permutation_test_score(
        CLASSIFIER, TEXTS, Y, cv=2, n_permutations=2, random_state=0
    )
    assert 0 <= score <= 1
    assert of_permutations.shape == (2,)
    assert 0 < p_value <= 1


def test_permutation_importance_finds_the_column_that_matters():
    texts_only = clone(CLASSIFIER).set_params(**LEARNING, text_template="{title}").fit(TABLE, Y)
    importance = permutation_importance(texts_only, TABLE, Y, n_repeats=3, random_state=0)["importances_mean"]
    assert importance[0] > 0.2
    assert importance[1:].tolist() == [0, 0]


# -- classifiers around ours -------------------------------------------------------------------------------------

NUMBERS = np.arange(32.0).reshape(16, 2) % 5
INDICATOR = np.c_[Y == "sports", np.arange(16) % 2 == 0].astype(int)


@pytest.mark.parametrize(
    "meta",
    [
        CalibratedClassifierCV(CLASSIFIER, cv=2),
        CalibratedClassifierCV(CLASSIFIER, cv=2, method="isotonic", ensemble=False),
        VotingClassifier([("ours", CLASSIFIER), ("tfidf", make_pipeline(TfidfVectorizer(), LogisticRegression()))],
                         voting="soft"),
        StackingClassifier([("ours", CLASSIFIER), ("tfidf", make_pipeline(TfidfVectorizer(), LogisticRegression()))],
                           cv=2),
        OneVsRestClassifier(CLASSIFIER),
        make_pipeline(FunctionTransformer(lambda texts: [text.upper() for text in texts]), CLASSIFIER),
        make_pipeline(CLASSIFIER, LogisticRegression()),
        make_pipeline(REGRESSOR.__class__(**PARAMETERS, label_names=["topic"]), LogisticRegression()),
        make_pipeline(FeatureUnion([("ours", CLASSIFIER), ("tfidf", TfidfVectorizer())]), LogisticRegression()),
        GridSearchCV(CLASSIFIER, {"lr": [1e-3]}, cv=2),
    ],
    ids=lambda meta: type(meta).__name__,
)  # fmt: skip
@pytest.mark.parametrize("y", [pytest.param(Y, marks=pytest.mark.full), Y3], ids=["two classes", "three classes"])
def test_meta_classifiers_take_texts(meta, y):
    """Shapes, classes and probabilities; a clone agrees; the inner estimator is not changed."""
    if isinstance(meta, Pipeline) and isinstance(meta[0], GLiClassRegressor):
        y = np.unique(y, return_inverse=True)[1].astype(float)
    proba = clone(meta).fit(TEXTS, y).predict_proba(TEXTS)
    again = clone(meta).fit(TEXTS, y)
    assert proba.shape == (16, len(set(y)))
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(again.predict_proba(TEXTS), proba)
    assert again.classes_.tolist() == sorted(set(y))
    assert set(again.predict(TEXTS)) <= set(y)
    assert 0 <= again.score(TEXTS, y) <= 1
    assert not hasattr(CLASSIFIER, "model_")


@pytest.mark.parametrize(
    "meta",
    [
        BaggingClassifier(CLASSIFIER, n_estimators=2, random_state=0),
        OutputCodeClassifier(CLASSIFIER, code_size=2, random_state=0),
    ],
    ids=lambda meta: type(meta).__name__,
)
def test_meta_classifiers_take_a_column_of_texts(meta):
    """These need a 2-D X with one column of texts."""
    X = np.array(TEXTS, dtype=object)[:, None]
    fitted_meta = clone(meta).fit(X, Y3)
    assert fitted_meta.predict(X).shape == (16,)
    assert set(fitted_meta.predict(X)) <= set(Y3)
    np.testing.assert_array_equal(fitted_meta.predict(X), clone(meta).fit(X, Y3).predict(X))


def test_tuned_threshold_decides():
    tuned = TunedThresholdClassifierCV(CLASSIFIER, cv=2, scoring="balanced_accuracy").fit(TEXTS, Y)
    assert 0 <= tuned.best_threshold_ <= 1
    expected = np.where(tuned.predict_proba(TEXTS)[:, 1] >= tuned.best_threshold_, "sports", "politics")
    np.testing.assert_array_equal(tuned.predict(TEXTS), expected)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.9, 1.1])
def test_fixed_threshold_decides(fitted, threshold):
    fixed = FixedThresholdClassifier(FrozenEstimator(fitted), threshold=threshold, response_method="predict_proba")
    expected = np.where(fitted.predict_proba(TEXTS)[:, 1] >= threshold, "sports", "politics")
    np.testing.assert_array_equal(fixed.fit(TEXTS, Y).predict(TEXTS), expected)


def test_frozen_estimator_is_calibrated_without_a_fit(fitted):
    calibrated = CalibratedClassifierCV(FrozenEstimator(fitted)).fit(TEXTS, Y)
    assert calibrated.calibrated_classifiers_[0].estimator.estimator is fitted
    assert calibrated.score(TEXTS, Y) == fitted.score(TEXTS, Y) == 1.0


def test_stacking_with_gradient_boosting_on_a_column_transformer():
    """Columns of text, categories and numbers, with missing cells."""
    columns = ColumnTransformer([("kind", FunctionTransformer(lambda X: X.astype(str) == "x"), ["kind"]),
                                 ("year", "passthrough", ["year"])])  # fmt: skip
    text = ColumnTransformer([("text", CLASSIFIER, "title")])
    stack = StackingClassifier(
        [
            ("table", CLASSIFIER),
            ("title", make_pipeline(text, LogisticRegression())),
            ("boosting", make_pipeline(columns, HistGradientBoostingClassifier(max_iter=3))),
        ],
        cv=2,
    ).fit(TABLE, Y)
    assert stack.predict_proba(TABLE).shape == (16, 2)
    assert stack.final_estimator_.n_features_in_ == 3
    assert stack.feature_names_in_.tolist() == ["title", "kind", "year"]


@pytest.mark.parametrize("column", ["title", ["title"]])
def test_column_transformer_gives_texts_in_one_or_two_dimensions(column):
    columns = ColumnTransformer([("text", CLASSIFIER, column), ("rest", "passthrough", ["year"])])
    out = columns.set_output(transform="pandas").fit_transform(TABLE, Y)
    assert out.shape == (16, 33)
    assert out.columns[0] == "text__gliclassclassifier0"
    np.testing.assert_array_equal(out.iloc[:, :32], clone(CLASSIFIER).fit(TEXTS, Y).transform(TEXTS))


@pytest.mark.parametrize(
    "meta",
    [OneVsRestClassifier(CLASSIFIER), MultiOutputClassifier(CLASSIFIER), ClassifierChain(CLASSIFIER), CLASSIFIER],
    ids=lambda meta: type(meta).__name__,
)
def test_multi_label_meta_estimators_work(meta):
    """A chain appends predictions to X and needs numbers; all others take texts too."""
    for X in [NUMBERS] if isinstance(meta, ClassifierChain) else [NUMBERS, TEXTS]:
        predicted = clone(meta).fit(X, INDICATOR).predict(X)
        assert predicted.shape == (16, 2)
        assert set(np.unique(predicted)) <= {0, 1}


def test_one_vs_one_takes_numeric_tables():
    """It converts X to numbers, and cannot take texts."""
    predicted = OneVsOneClassifier(CLASSIFIER).fit(NUMBERS, Y3).predict(NUMBERS)
    assert set(predicted) <= set(Y3)


def test_self_training_labels_unlabelled_rows():
    y = np.where(np.arange(16) % 4 == 0, -1, (Y == "sports").astype(int))
    training = SelfTrainingClassifier(CLASSIFIER, max_iter=2, threshold=0.5).fit(NUMBERS, y)
    assert training.predict_proba(NUMBERS).shape == (16, 2)
    assert set(training.transduction_) <= {0, 1}
    assert (training.labeled_iter_[y != -1] == 0).all()


# -- regressors around ours --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("meta", "y"),
    [
        (TransformedTargetRegressor(REGRESSOR, func=np.log1p, inverse_func=np.expm1), VALUES + 200),
        (MultiOutputRegressor(REGRESSOR), np.c_[VALUES, -VALUES]),
        (VotingRegressor([("a", REGRESSOR), ("b", REGRESSOR)]), VALUES),
        (GridSearchCV(REGRESSOR, {"lr": [1e-3, 1e-2]}, cv=2), VALUES),
        (make_pipeline(FunctionTransformer(), REGRESSOR), VALUES),
    ],
    ids=lambda value: type(value).__name__,
)
def test_meta_regressors_take_texts(meta, y):
    fitted_meta = clone(meta).fit(TEXTS, y)
    predicted = fitted_meta.predict(TEXTS)
    assert predicted.shape == y.shape
    assert np.isfinite(predicted).all()
    np.testing.assert_array_equal(predicted, clone(meta).fit(TEXTS, y).predict(TEXTS))
    assert fitted_meta.score(TEXTS, y) == pytest.approx(metrics.r2_score(y, predicted))


# -- pipelines, output, displays ---------------------------------------------------------------------------------


def test_pipeline_with_memory_reads_embeddings(tmp_path):
    memory = joblib.Memory(tmp_path, verbose=0)
    steps = [("embed", CLASSIFIER), ("model", LogisticRegression())]
    plain = clone(Pipeline(steps)).fit(TEXTS, Y).predict_proba(TEXTS)
    for _ in range(2):  # computed, then read
        cached = clone(Pipeline(steps, memory=memory)).fit(TEXTS, Y)
        np.testing.assert_array_equal(cached.predict_proba(TEXTS), plain)
    assert len(list(tmp_path.rglob("output.pkl"))) == 1


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_set_output_returns_frames(fitted, library):
    out = copy.deepcopy(fitted).set_output(transform=library).transform(TEXTS)
    assert list(out.columns) == fitted.get_feature_names_out().tolist()
    np.testing.assert_array_equal(out.to_numpy(), fitted.transform(TEXTS))


def test_html_repr_names_the_estimator(fitted):
    for estimator in (
        CLASSIFIER,
        fitted,
        make_pipeline(FunctionTransformer(), CLASSIFIER),
        GridSearchCV(CLASSIFIER, {}),
    ):
        html = estimator_html_repr(estimator)
        assert "GLiClassClassifier" in html
        assert "sk-container" in estimator._repr_html_()
    assert "architecture_type" in estimator_html_repr(clone(CLASSIFIER).set_params(architecture_type="uni-encoder"))
    assert "GLiClassClassifier(" in repr(CLASSIFIER)


@pytest.fixture
def close_figures():
    yield
    plt.close("all")


@pytest.mark.usefixtures("close_figures")
@pytest.mark.parametrize(
    "display",
    [
        metrics.ConfusionMatrixDisplay,
        metrics.RocCurveDisplay,
        metrics.PrecisionRecallDisplay,
        metrics.DetCurveDisplay,
        CalibrationDisplay,
    ],
)
def test_displays_of_classifiers_have_data(fitted, display):
    shown = display.from_estimator(fitted, TEXTS, Y)
    assert shown.ax_.has_data()


@pytest.mark.usefixtures("close_figures")
def test_displays_of_regressors_and_curves(fitted_regressor):
    assert metrics.PredictionErrorDisplay.from_estimator(fitted_regressor, TEXTS, VALUES).ax_.has_data()
    curve = LearningCurveDisplay.from_estimator(
        CLASSIFIER, TEXTS, Y, train_sizes=[4, 8], cv=2, shuffle=True, random_state=0
    )
    assert curve.test_scores.shape == (2, 2)
    curve = ValidationCurveDisplay.from_estimator(CLASSIFIER, TEXTS, Y, param_name="lr", param_range=[1e-4, 1e-2], cv=2)
    assert curve.ax_.has_data()


# -- copies ------------------------------------------------------------------------------------------------------


TRUSTED = [  # what the README tells users of skops to trust
    "sklearn_gliclass.classifier.GLiClassClassifier",
    "sklearn_gliclass.regressor.GLiClassRegressor",
    "sklearn_gliclass.training.arguments.TrainingArguments",
]


def through_pickle(estimator, folder):
    return pickle.loads(pickle.dumps(estimator))


def through_joblib(estimator, folder):
    joblib.dump(estimator, folder / "estimator.joblib", compress=3)
    return joblib.load(folder / "estimator.joblib")


def through_deepcopy(estimator, folder):
    return copy.deepcopy(estimator)


def through_skops(estimator, folder):
    return skops.io.loads(skops.io.dumps(estimator), trusted=TRUSTED)


COPIES = [through_pickle, through_joblib, through_deepcopy, through_skops]


@functools.cache
def fitted_to_a_table(architecture):
    """Fit a classifier; no test may change it."""
    return clone(CLASSIFIER).set_params(architecture_type=architecture).fit(TABLE, Y)


@pytest.mark.parametrize("through", COPIES)
@pytest.mark.parametrize("architecture", ["uni-encoder", "bi-encoder", "bi-encoder-fused"])
def test_copies_of_a_classifier(through, architecture, tmp_path):
    estimator = fitted_to_a_table(architecture)
    copied = through(estimator, tmp_path)
    np.testing.assert_array_equal(copied.predict_proba(TABLE), estimator.predict_proba(TABLE))
    np.testing.assert_array_equal(copied.transform(TABLE), estimator.transform(TABLE))
    assert copied.get_params() == estimator.get_params()
    assert copied.feature_names_in_.tolist() == estimator.feature_names_in_.tolist()
    assert copied.n_iter_ == estimator.n_iter_
    assert copied.model_ is not estimator.model_


@pytest.mark.parametrize("through", COPIES)
def test_copies_of_a_regressor(through, fitted_regressor, tmp_path):
    copied = through(fitted_regressor, tmp_path)
    np.testing.assert_array_equal(copied.predict(TEXTS), fitted_regressor.predict(TEXTS))


@pytest.mark.parametrize("through", COPIES)
def test_unfitted_copies_keep_the_hyperparameters(through, tmp_path):
    assert through(CLASSIFIER, tmp_path).get_params() == CLASSIFIER.get_params()


@pytest.mark.parametrize("through", [through_pickle, through_joblib, through_deepcopy])
def test_copies_train_on(through, fitted, tmp_path):
    copied = through(fitted, tmp_path)
    before = copied.predict_proba(TEXTS)
    copied.partial_fit(TEXTS, Y[::-1])
    assert not np.allclose(copied.predict_proba(TEXTS), before)
    np.testing.assert_array_equal(fitted.predict_proba(TEXTS), before)


def test_clone_is_not_fitted_and_fits_alike(fitted):
    cloned = clone(fitted)
    assert not hasattr(cloned, "model_")
    np.testing.assert_array_equal(cloned.fit(TEXTS, Y).predict_proba(TEXTS), fitted.predict_proba(TEXTS))


# -- skorch's callbacks ------------------------------------------------------------------------------------------


def silent(*args):
    """Discard the messages of callbacks."""


def test_early_stopping_callback_ends_the_training():
    """No epoch is better by 1000 %, so that training stops after 1 + `patience` epochs."""
    stop = callbacks.EarlyStopping("train_loss", patience=2, threshold=10.0, sink=silent)
    stopped = clone(CLASSIFIER).set_params(max_epochs=9, callbacks=[stop]).fit(TEXTS, Y)
    assert stopped.n_iter_ == len(stopped.history_) == 3


def test_checkpoint_callback_stores_the_weights_of_the_best_epoch(tmp_path):
    keep = callbacks.Checkpoint("train_loss_best", dirname=tmp_path, f_params="best.pt", load_best=True, sink=silent)
    trained = clone(CLASSIFIER).set_params(max_epochs=3, callbacks=[("keep", keep)], label_centroid_share=0)
    trained.fit(TEXTS, Y)
    stored = torch.load(tmp_path / "best.pt")
    assert any(trained.history_[:, "event_cp"])
    for name, weights in trained.model_.state_dict().items():
        torch.testing.assert_close(stored[name], weights)


def test_epoch_scoring_callback_with_a_function():
    """The function is called once per epoch with the net, whose module is the model of the estimator."""
    seen = []

    def score(net, X, y):
        seen.append(net.module_)
        return len(seen)

    scoring = callbacks.EpochScoring(score, name="calls", on_train=True, use_caching=False)
    scored = clone(CLASSIFIER).set_params(callbacks=[scoring]).fit(TEXTS, Y)
    assert scored.history_[:, "calls"] == [1, 2]
    assert all(module is scored.model_ for module in seen)


def test_callbacks_are_cloned_with_the_estimator_and_not_changed():
    stop = callbacks.EarlyStopping("train_loss", sink=silent)
    estimator = clone(CLASSIFIER).set_params(callbacks=[stop])
    before = stop.get_params()
    estimator.fit(TEXTS, Y)
    assert estimator.callbacks[0].get_params() == before
    assert clone(estimator).fit(TEXTS, Y).n_iter_ == estimator.n_iter_
