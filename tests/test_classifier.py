"""GLiClassClassifier: fit, predict, search, and errors for invalid input."""

import contextlib
import io
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sampling import sampled
from scipy.special import softmax
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from tiny_estimators import ARCHITECTURES, LABELS, TEXTS, tiny, tiny_of

from sklearn_gliclass import GLiClassClassifier
from sklearn_gliclass.model.poolings import POOLINGS


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_estimator_learns_its_training_texts(architecture):
    clf = tiny_of(architecture, max_epochs=20, lr=4e-3, others_lr=4e-3, shuffle_labels=False).fit(TEXTS, LABELS)
    assert clf.score(TEXTS, LABELS) == 1.0
    losses = clf.history_[:, "train_loss"]
    assert losses[-1] < 0.5 * losses[0]
    assert clf.n_iter_ == 20


def test_weights_are_all_trained():
    """The default configuration of the reference trains nothing, without an error."""
    clf = tiny(pooling_strategy="avg", max_epochs=1, architecture_type="uni-encoder")
    untrained = clone(clf).set_params(max_epochs=0).fit(TEXTS, LABELS)
    trained = clf.fit(TEXTS, LABELS)
    before, after = untrained.model_.state_dict(), trained.model_.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    unread = {name for name in before if "pooler" in name or "token_type" in name or name.endswith("position_ids")}
    # The key bias adds a constant to the logits of the attention, and has no gradient.
    keys = {name for name in before if name.endswith("self.key.bias")}
    assert same - unread - keys == set()


def test_error_in_training_is_not_swallowed():
    """The reference swallows errors of training steps."""

    class Broken:
        def initialize(self):
            return self

        def set_params(self, **params):
            return self

        def get_params(self, deep=True):
            return {}

        def __getattr__(self, name):
            if name.startswith("on_"):
                return self.fail if name == "on_grad_computed" else lambda *args, **kwargs: None
            raise AttributeError(name)

        def fail(self, *args, **kwargs):
            raise RuntimeError("broken callback")

    with pytest.raises(RuntimeError, match="broken callback"):
        tiny(callbacks=[("broken", Broken())]).fit(TEXTS, LABELS)


@pytest.mark.parametrize("kind", [list, np.array, pd.Series, lambda x: np.array(x, object), tuple])
def test_texts_in_any_container_give_the_same(kind):
    expected = tiny().fit(TEXTS, LABELS).predict_proba(TEXTS)
    np.testing.assert_array_equal(tiny().fit(kind(TEXTS), kind(LABELS)).predict_proba(kind(TEXTS)), expected)


def test_predictions_agree_with_each_other():
    clf = tiny().fit([*TEXTS, "so what"], [*LABELS, "neither"])
    logits, proba = clf.decision_function(TEXTS), clf.predict_proba(TEXTS)
    assert logits.shape == proba.shape == (8, 3)
    assert clf.classes_.tolist() == ["neither", "politics", "sports"]
    np.testing.assert_allclose(proba, softmax(logits, axis=1), rtol=1e-6)
    np.testing.assert_allclose(np.exp(clf.predict_log_proba(TEXTS)), proba, rtol=1e-5)
    np.testing.assert_array_equal(clf.predict(TEXTS), clf.classes_[proba.argmax(axis=1)])


def test_two_classes_have_one_decision_value():
    clf = tiny().fit(TEXTS, LABELS)
    decision = clf.decision_function(TEXTS)
    assert decision.shape == (8,)
    np.testing.assert_array_equal(clf.predict(TEXTS), clf.classes_[(decision > 0).astype(int)])


def test_order_and_company_of_the_rows_make_no_difference():
    clf = tiny(dtype="float32").fit(TEXTS, LABELS)
    rows = np.random.RandomState(0).permutation(8)
    proba = clf.predict_proba(TEXTS)
    np.testing.assert_array_equal(clf.predict_proba([TEXTS[row] for row in rows]), proba[rows])
    alone = np.vstack([clf.predict_proba([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, proba, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "pooling"),
    sampled(
        [
            (architecture, pooling)
            for architecture in ARCHITECTURES
            for pooling in (["avg"] if architecture in ("encoder-decoder-cls", "decoder-kv") else POOLINGS)
        ],
        12,
    ),
)
def test_text_alone_and_beside_a_long_one(architecture, pooling):
    """The poolings of the reference include padding."""
    options = {"pooling_strategy": pooling, "max_batch_tokens": 10_000, "dtype": "float64", "max_epochs": 0}
    clf = tiny_of(architecture, **options).fit(TEXTS, LABELS)
    alone = clf.decision_function(TEXTS[:1])
    together = clf.decision_function([TEXTS[0], " ".join(TEXTS * 2)])
    np.testing.assert_allclose(together[:1], alone, atol=1e-10)


def test_same_seed_same_model_and_the_global_state_is_untouched():
    torch.manual_seed(3)
    np.random.seed(3)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(3)
    np.random.seed(3)
    first = tiny(dropout=0.5).fit(TEXTS, LABELS).predict_proba(TEXTS)
    assert (torch.rand(1), np.random.rand()) == expected
    np.testing.assert_array_equal(tiny(dropout=0.5).fit(TEXTS, LABELS).predict_proba(TEXTS), first)
    assert not np.allclose(tiny(dropout=0.5, random_state=1).fit(TEXTS, LABELS).predict_proba(TEXTS), first)


def test_data_of_the_caller_are_not_changed():
    """The reference changes the data of the caller."""
    texts, labels, names = list(TEXTS), list(LABELS), {"sports": "sport", "politics": "power"}
    tiny(label_names=names).fit(texts, labels)
    assert (texts, labels, names) == (TEXTS, LABELS, {"sports": "sport", "politics": "power"})


def test_grid_search_over_the_scorer():
    grid = GridSearchCV(tiny(), {"scorer_type": ["simple", "weighted-dot", "mlp", "hopfield"]}, cv=2)
    grid.fit(TEXTS, LABELS)
    assert len(grid.cv_results_["params"]) == 4
    assert np.isfinite(grid.cv_results_["mean_test_score"]).all()
    assert grid.best_estimator_.config_.scorer_type == grid.best_params_["scorer_type"]


def test_pipeline_with_a_cleaning_step():
    clean = FunctionTransformer(lambda texts: [text.replace("#", "") for text in texts])
    pipeline = make_pipeline(clean, tiny()).fit([f"#{text}" for text in TEXTS], LABELS)
    np.testing.assert_array_equal(pipeline.predict_proba(["##the goal"]), pipeline[-1].predict_proba(["the goal"]))


def test_more_classes_than_a_prompt_holds():
    labels = [f"topic {i}" for i in range(40)]
    texts = [f"words about number {i}" for i in range(40)]
    for architecture in ARCHITECTURES:
        clf = tiny_of(architecture, max_num_classes=7, max_epochs=1).fit([*texts, *texts], [*labels, *labels])
        proba = clf.predict_proba(texts[:3])
        assert proba.shape == (3, 40)
        np.testing.assert_allclose(proba.sum(axis=1), 1.0, rtol=1e-5)


def test_chunks_of_labels_that_are_judged_apart_give_what_one_prompt_gives():
    """In the bi-encoder with a dot product, labels do not affect each other."""
    labels = [f"topic {i}" for i in range(10)] * 2
    clf = tiny(max_epochs=2).fit(labels, labels)
    whole = clf.decision_function(TEXTS)
    np.testing.assert_allclose(clf.set_params(max_num_classes=3).decision_function(TEXTS), whole, atol=1e-5)


def test_control_tokens_in_texts_and_labels_stay_text():
    """In the reference, a label token in a text adds a label."""
    clf = tiny(architecture_type="uni-encoder").fit(TEXTS, ["<<LABEL>>one", "two <<SEP>>[SEP]"] * 4)
    assert clf.predict_proba(["a <<LABEL>> goal <<SEP>> [CLS]"]).shape == (1, 2)


def test_long_text_is_truncated_and_labels_are_not():
    """The reference truncates the labels together with the text."""
    clf = tiny(architecture_type="uni-encoder", long_texts="truncate").fit(TEXTS, LABELS)
    with pytest.warns(UserWarning, match=r"1 of 2 texts are too long for max_length=128") as caught:
        proba = clf.predict_proba([TEXTS[0], "goal " * 20_000])
    assert len(caught) == 1
    assert not np.allclose(proba[1], 0.5)
    with pytest.warns(UserWarning, match="1 of 1 texts"):
        np.testing.assert_allclose(clf.predict_proba(["goal " * 1_000])[0], proba[1], atol=1e-6)


def test_empty_texts_are_texts():
    proba = tiny().fit([*TEXTS, ""], [*LABELS, "sports"]).predict_proba(["", "goal"])
    assert np.isfinite(proba).all()


def test_silent_by_default_and_a_bar_when_asked():
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny().fit(TEXTS, LABELS).predict(TEXTS)
        assert (out.getvalue(), err.getvalue()) == ("", "")
        tiny(verbose=1).fit(TEXTS, LABELS)
    assert out.getvalue() == ""
    assert "3/3" in err.getvalue()  # one batch in each of 3 epochs


def test_max_epochs_0_trains_nothing():
    clf = tiny(max_epochs=0).fit(TEXTS, LABELS)
    assert clf.n_iter_ == 0
    assert clf.predict(TEXTS).shape == (8,)


@pytest.mark.parametrize(
    ("X", "y", "hyperparameters", "message"),
    [
        ([], [], {}, "0 sample"),
        (TEXTS, ["a"] * 8, {}, "only one class: 'a'"),
        (TEXTS, LABELS[:5], {}, r"inconsistent numbers of samples: \[8, 5\]"),
        ([*TEXTS[:7], None], LABELS, {}, r"1 missing text\(s\).*row\(s\) 7"),
        (TEXTS, LABELS, {"scorer_type": "dotty"}, "'scorer_type' parameter .* Got 'dotty' instead"),
        (TEXTS, LABELS, {"max_epochs": -1}, "'max_epochs' parameter .* Got -1 instead"),
        (TEXTS, LABELS, {"scorer_type": "cross-attn"}, "without pooling"),
        (TEXTS, LABELS, {"max_length": 1000}, "more than the 128 positions"),
        (TEXTS, LABELS, {"encoder_model": "some/name"}, "exclude each other"),
        (TEXTS, LABELS, {"label_names": {"sports": "x"}}, r"no text for the class\(es\) \['politics'\]"),
        (TEXTS, LABELS, {"label_names": ["same", "same"]}, "same label text"),
        (TEXTS, LABELS, {"prompt_first": True}, "prompt_first=True has no effect here"),
        (TEXTS, LABELS, {"focal_loss_gamma": 1}, "focal_loss_gamma=1 has no effect here"),
        (TEXTS, LABELS, {"ignore_index": -1}, "ignore_index=-1 has no effect here.*y is multi-label"),
        (TEXTS, LABELS, {"class_token_index": 7}, "class_token_index=7 is not the id"),
        (TEXTS, LABELS, {"vocab_size": 7}, "vocab_size=7 is not the encoder's"),
        (TEXTS, LABELS, {"projector_hidden_act": "tanh"}, "identity.*needs a projector_hidden_act"),
        (TEXTS, LABELS, {"hidden_size": 5}, "hidden_size=64"),
        (TEXTS, LABELS, {"optim": "lomo"}, "'optim' parameter"),
        (
            TEXTS,
            [f"{'very ' * 30}long label {i}" for i in range(8)],
            {"architecture_type": "uni-encoder"},
            "Raise max_length, lower max_num_classes",
        ),
    ],
)
def test_invalid_input_raises(X, y, hyperparameters, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        tiny(**hyperparameters).fit(X, y)


def test_encoder_that_is_nowhere():
    with pytest.raises(OSError, match=r"Cannot find the model 'no-such/encoder'.*Ways to get it"):
        GLiClassClassifier(encoder_model="no-such/encoder").fit(TEXTS, LABELS)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function", "transform", "save_pretrained"])
def test_unfitted_classifier_raises(method, tmp_path):
    with pytest.raises(NotFittedError):
        getattr(tiny(), method)(tmp_path if method == "save_pretrained" else TEXTS)


def test_scorer_mlp_that_is_asked_for_is_built():
    """The reference ignores the configured width."""
    clf = tiny(scorer_type="mlp", scorer_mlp_hidden_size=10, max_epochs=0).fit(TEXTS, LABELS)
    assert clf.model_.model.scorer.mlp[0].out_features == 10
    assert tiny(scorer_type="mlp", max_epochs=0).fit(TEXTS, LABELS).model_.model.scorer.mlp[0].out_features == 256
