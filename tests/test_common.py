"""scikit-learn's own checks, in full: no expected failures, no tag that switches checks off."""

from functools import partial

import pytest
import torch
from sklearn.base import clone
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import (
    check_dataframe_column_names_consistency,
    check_global_output_transform_pandas,
    check_global_set_output_transform_polars,
    check_inplace_ensure_writeable,
    check_param_validation,
    check_set_output_transform,
    check_set_output_transform_pandas,
    check_set_output_transform_polars,
    check_transformer_get_feature_names_out,
    check_transformer_get_feature_names_out_pandas,
    estimator_checks_generator,
)

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor
from sklearn_gliclass.training import Trainer

SMALL_BERT = {
    "model_type": "bert",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "max_position_embeddings": 1024,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "vocab_size": 500,
}
# Not T5, whose norms compute in single precision whatever the type of the model.
SMALL_BART = {
    "model_type": "bart",
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 1,
    "decoder_attention_heads": 1,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "max_position_embeddings": 1024,
    "dropout": 0.0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "decoder_start_token_id": 3,
    "forced_eos_token_id": 3,
    "vocab_size": 500,
}
ARCHITECTURES = {
    "uni-encoder": SMALL_BERT,
    "bi-encoder": SMALL_BERT,
    "bi-encoder-fused": SMALL_BERT,
    "encoder-decoder": SMALL_BART,
}
# Some checks compare a weight of 2 with a duplicated row, which needs exact sums: double precision, one batch, no
# randomness.
EXACT = {
    "dtype": "float64",
    "dropout": 0.0,
    "shuffle_labels": False,
    "batch_size": 1000,
    "max_epochs": 2,
    "max_length": 1024,
    "device": "cpu",
}
FROZEN = GLiClassClassifier(encoder_config=SMALL_BERT, freeze_encoder=True, **EXACT)
ESTIMATORS = [
    estimator(architecture_type=architecture, encoder_config=encoder, **EXACT)
    for estimator in (GLiClassClassifier, GLiClassRegressor)
    for architecture, encoder in ARCHITECTURES.items()
] + [FROZEN]


def name_of(estimator):
    frozen = "-frozen" if estimator.freeze_encoder is True else ""
    return f"{type(estimator).__name__}-{estimator.architecture_type}{frozen}"


# Architectures share methods and their arguments: one classifier and one regressor are sufficient.
SAMPLED = {"GLiClassClassifier-uni-encoder", "GLiClassRegressor-bi-encoder"}
OTHERS = [estimator for estimator in ESTIMATORS if name_of(estimator) not in SAMPLED]


def id_of(value):
    """Return the name of an estimator or check; scikit-learn's ids hold whole estimators, which takes seconds."""
    if not isinstance(value, partial):
        return name_of(value)
    return ",".join([value.func.__name__, *map(str, value.keywords.values())])


# Whether results depend on the batch, the order of the rows and sample weights depends on the model.
CHECKS_OF_RESULTS = [
    "check_fit_idempotent",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_sample_weight_equivalence_on_dense_data",
]


def checks_on(estimators):
    """Parametrise with all checks but those of results, which are tested below.

    By default, a check runs on the first of the estimators that have it: most test methods and their arguments, which
    classifier and regressor share.
    """
    seen, cases = set(), []
    for estimator in estimators:
        for _, check in estimator_checks_generator(estimator):
            if getattr(check, "func", check).__name__ not in CHECKS_OF_RESULTS:
                marks = [pytest.mark.full] if id_of(check) in seen else []
                cases.append(pytest.param(estimator, check, marks=marks))
                seen.add(id_of(check))
    return pytest.mark.parametrize(("estimator", "check"), cases, ids=id_of)


def shortened(estimator):
    """Return the estimator with the shortest training, for checks of shapes, types and messages."""
    shortest = {"max_epochs": 1, "shrinkage": 1.0} if isinstance(estimator, GLiClassRegressor) else {"max_epochs": 1}
    return clone(estimator).set_params(**shortest)


@checks_on([shortened(estimator) for estimator in ESTIMATORS if name_of(estimator) in SAMPLED])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.full
@checks_on(OTHERS)
def test_scikit_learn_checks_of_the_other_estimators(estimator, check):
    check(estimator)


def test_sampled_estimators_are_found():
    assert {name_of(estimator) for estimator in ESTIMATORS} > SAMPLED
    assert len(OTHERS) == len(ESTIMATORS) - len(SAMPLED)


# Each architecture with each check; regressors share all but their loss with classifiers.
RESULTS = [
    pytest.param(
        estimator,
        name,
        marks=[]
        if isinstance(estimator, GLiClassClassifier) or name == "check_sample_weight_equivalence_on_dense_data"
        else [pytest.mark.full],
        id=f"{name_of(estimator)}-{name}",
    )
    for estimator in ESTIMATORS
    for name in CHECKS_OF_RESULTS
]


@pytest.mark.parametrize(("estimator", "name"), RESULTS)
def test_scikit_learn_checks_of_results(estimator, name):
    checks = [
        check for _, check in estimator_checks_generator(estimator) if getattr(check, "func", check).__name__ == name
    ]
    assert checks
    for check in checks:
        check(clone(estimator))


# Checks that scikit-learn runs on its own estimators besides.
FURTHER_CHECKS = [
    check_dataframe_column_names_consistency,
    check_global_output_transform_pandas,
    check_global_set_output_transform_polars,
    check_inplace_ensure_writeable,
    check_param_validation,
    check_set_output_transform,
    check_set_output_transform_pandas,
    check_set_output_transform_polars,
    check_transformer_get_feature_names_out,
    check_transformer_get_feature_names_out_pandas,
]


FURTHER_ESTIMATORS = [shortened(estimator) for estimator in ESTIMATORS[:8:4]]
# What both estimators inherit from one class: of the regressor, one check.
OF_OUTPUT = {
    check_global_output_transform_pandas,
    check_global_set_output_transform_polars,
    check_set_output_transform_pandas,
    check_set_output_transform_polars,
}
FURTHER = [
    pytest.param(
        estimator,
        check,
        marks=[pytest.mark.full] if check in OF_OUTPUT and isinstance(estimator, GLiClassRegressor) else [],
        id=f"{name_of(estimator)}-{check.__name__}",
    )
    for estimator in FURTHER_ESTIMATORS
    for check in FURTHER_CHECKS
]


@pytest.mark.parametrize(("estimator", "check"), FURTHER)
def test_further_scikit_learn_checks(estimator, check):
    check(type(estimator).__name__, estimator)


def checks_of(estimator):
    return [getattr(check, "func", check).__name__ for _, check in estimator_checks_generator(estimator)]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=name_of)
def test_no_check_is_switched_off(estimator):
    """The tags enable all checks, except for those of the accuracy on random numbers."""
    tags = get_tags(estimator)
    assert tags.input_tags.two_d_array
    assert not tags.no_validation
    assert not tags._skip_test
    assert not tags.non_deterministic
    assert len(checks_of(estimator)) >= 55  # 73 and 65 in scikit-learn 1.9


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=name_of)
def test_checks_of_each_role_run(estimator):
    """Checks of transformers, sample weights, partial_fit, subsets of rows and several outputs are run."""
    of_the_role = {
        "classifier": {"check_classifiers_train", "check_classifiers_multilabel_output_format_predict_proba"},
        "regressor": {"check_regressors_train", "check_regressor_multioutput"},
    }[get_tags(estimator).estimator_type]
    assert set(checks_of(estimator)) >= of_the_role | {
        "check_transformer_general",
        "check_sample_weight_equivalence_on_dense_data",
        "check_estimators_partial_fit_n_features",
        "check_methods_subset_invariance",
        "check_estimators_pickle",
        "check_fit_idempotent",
    }


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=name_of)
def test_checks_train(estimator):
    """The tested estimators train with the Trainer, in one batch per epoch, and their weights change."""
    texts, y = ["a good film", "a bad film", "good", "bad"], [1, 0, 1, 0]
    fitted = clone(estimator).set_params(random_state=0).fit(texts, y)
    untrained = clone(estimator).set_params(random_state=0, max_epochs=0).fit(texts, y)
    assert isinstance(fitted.net_, Trainer)
    assert len(fitted.history_) == estimator.max_epochs
    before, after = untrained.model_.state_dict(), fitted.model_.state_dict()
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    if estimator.freeze_encoder is not True:
        assert len(moved) > len(before) / 2
    else:
        assert moved
        assert not any("encoder." in name for name in moved)
