"""Low-rank adapters: against peft itself, and in fits, pickles, folders and searches."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from transformers import AutoModel, BertConfig, BertModel

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor
from sklearn_gliclass.data.tokenizer import train_tokenizer
from sklearn_gliclass.testing import TINY_BERT

peft = pytest.importorskip("peft")

TEXTS = ["the goal was late", "the vote is near", "a goal and a match", "a law and a vote"] * 2
Y = ["sports", "politics"] * 4
OPTIONS = {"max_epochs": 2, "lr": 1e-2, "others_lr": 1e-3, "device": "cpu", "random_state": 0}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Folder of a tiny pretrained encoder."""
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = train_tokenizer([*TEXTS, *Y])
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = {name: value for name, value in TINY_BERT.items() if name != "model_type"}
    BertModel(BertConfig(vocab_size=len(tokenizer), **config)).save_pretrained(folder)
    return str(folder)


def fit(encoder, **options):
    return GLiClassClassifier(**{**OPTIONS, "encoder_model": encoder, "lora_rank": 4, **options}).fit(TEXTS, Y)


def encoder_weights(clf):
    return {name: weight.detach().clone() for name, weight in clf.model_.encoder.named_parameters()}


def test_deltas_have_the_rank_and_other_weights_are_frozen(encoder):
    before = dict(AutoModel.from_pretrained(encoder).named_parameters())
    for rank in (1, 4):
        changed = {}
        for name, weight in encoder_weights(fit(encoder, lora_rank=rank)).items():
            delta = weight - before[name]
            if delta.abs().max() > 0:
                changed[name] = torch.linalg.matrix_rank(delta, rtol=1e-3).item()
        assert len(changed) == 2 * 6  # layers, linear layers in each
        assert all(".layer." in name and name.endswith("weight") for name in changed)
        assert set(changed.values()) == {rank}


def test_all_parameters_are_trainable_after_the_fit(encoder):
    clf = fit(encoder)
    assert not any("lora" in name for name, _ in clf.model_.named_parameters())
    assert all(parameter.requires_grad for parameter in clf.model_.encoder.encoder.parameters())


def test_lora_alpha_scales_the_deltas(encoder):
    """After the first step of plain gradient descent only B is not zero, and its gradient is proportional to alpha."""
    before = dict(AutoModel.from_pretrained(encoder).named_parameters())
    rates = {"lr": 1e-3, "others_lr": 0.0, "weight_decay": 0.0}
    descent = {**rates, "optim": "sgd", "lr_scheduler_type": "constant", "max_epochs": 1, "max_grad_norm": None}
    name = "encoder.layer.1.output.dense.weight"
    deltas = [
        encoder_weights(fit(encoder, lora_alpha=alpha, batch_size=8, architecture_type="uni-encoder", **descent))[name]
        - before[name]
        for alpha in (None, 8, 16)
    ]
    torch.testing.assert_close(deltas[0], deltas[1])
    torch.testing.assert_close(deltas[2], 4 * deltas[1], rtol=1e-2, atol=1e-7)


@pytest.mark.parametrize(
    ("target", "n_changed"), [(["query", "value"], 4), (r".*layer\.0\..*", 6), ("all-linear", 12), (("dense",), 6)]
)
def test_lora_target_chooses_layers(encoder, target, n_changed):
    before = dict(AutoModel.from_pretrained(encoder).named_parameters())
    weights = encoder_weights(fit(encoder, lora_target=target))
    assert sum(not torch.equal(weight, before[name]) for name, weight in weights.items()) == n_changed


def test_frozen_lower_layers_have_no_adapters(encoder):
    before = dict(AutoModel.from_pretrained(encoder).named_parameters())
    weights = encoder_weights(fit(encoder, freeze_encoder=1))
    changed = {name.split(".")[2] for name, weight in weights.items() if not torch.equal(weight, before[name])}
    assert changed == {"1"}


@pytest.mark.parametrize(
    "options",
    [{"tie_encoders": False}, {"architecture_type": "uni-encoder"}, {"architecture_type": "bi-encoder-fused"}],
    ids=["two encoders", "uni-encoder", "bi-encoder-fused"],
)
def test_stored_estimators_predict_the_same(encoder, options, tmp_path):
    clf = fit(encoder, **options)
    expected = clf.predict_proba(TEXTS)
    restored = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(restored.predict_proba(TEXTS), expected)
    clf.save_pretrained(tmp_path / "model")
    loaded = GLiClassClassifier.from_pretrained(tmp_path / "model")
    np.testing.assert_allclose(loaded.predict_proba(TEXTS), expected, atol=1e-6)
    restored.save_adapter(tmp_path / "adapter")
    assert (tmp_path / "adapter" / "label_encoder").is_dir() == ("tie_encoders" in options)


def test_adapter_folder_is_read_by_peft_and_as_encoder(encoder, tmp_path):
    clf = fit(encoder)
    clf.save_adapter(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    by_peft = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(encoder), str(tmp_path)).merge_and_unload()
    untrained = GLiClassClassifier(encoder_model=str(tmp_path), max_epochs=0, device="cpu").fit(TEXTS, Y)
    expected = encoder_weights(clf)
    for found in (dict(by_peft.named_parameters()), encoder_weights(untrained)):
        for name, weight in expected.items():
            torch.testing.assert_close(found[name], weight, rtol=1e-5, atol=1e-6)
    assert all(parameter.requires_grad for parameter in untrained.model_.encoder.encoder.parameters())


def test_further_training_continues_the_adapter(encoder, tmp_path):
    before = dict(AutoModel.from_pretrained(encoder).named_parameters())
    name = "encoder.layer.1.attention.self.query.weight"
    for clf in (fit(encoder), pickle.loads(pickle.dumps(fit(encoder)))):
        first = encoder_weights(clf)[name]
        clf.partial_fit(TEXTS, Y)
        second = encoder_weights(clf)[name]
        clf.set_params(warm_start=True).fit(TEXTS, Y)
        third = encoder_weights(clf)[name]
        assert not torch.equal(first, second)
        assert not torch.equal(second, third)
        assert torch.linalg.matrix_rank(third - before[name], rtol=1e-3) == 4
    loaded = fit(encoder)
    loaded.save_pretrained(tmp_path)
    loaded = GLiClassClassifier.from_pretrained(tmp_path, device="cpu").partial_fit(TEXTS, Y)
    assert loaded.predict(TEXTS).shape == (8,)


def test_failed_partial_fit_restores_the_weights_exactly(encoder):
    clf = fit(encoder, ewc_lambda=1.0)
    before, expected = encoder_weights(clf), clf.predict_proba(TEXTS)
    with pytest.raises(TypeError, match="callbacks must be"):
        clf.set_params(callbacks=[3]).partial_fit(TEXTS, Y)
    clf.set_params(callbacks=None)
    assert all(torch.equal(weight, before[name]) for name, weight in encoder_weights(clf).items())
    np.testing.assert_array_equal(clf.predict_proba(TEXTS), expected)
    clf.partial_fit(TEXTS, Y)


def test_training_a_classifier_that_shares_its_model_leaves_the_other(encoder):
    clf = fit(encoder)
    other = clf.with_labels(["sports", "weather"])
    expected = other.predict_proba(TEXTS), clf.predict_proba(TEXTS)
    clf.partial_fit(TEXTS, Y)
    np.testing.assert_array_equal(other.predict_proba(TEXTS), expected[0])
    trained = clf.predict_proba(TEXTS)
    other.partial_fit(TEXTS, ["sports", "weather"] * 4)
    np.testing.assert_array_equal(clf.predict_proba(TEXTS), trained)


def test_search_over_lora_rank(encoder):
    search = GridSearchCV(clone(fit(encoder)), {"lora_rank": [None, 2]}, cv=2).fit(TEXTS, Y)
    assert len(search.cv_results_["mean_test_score"]) == 2


def test_regressor_trains_adapters(encoder):
    reg = GLiClassRegressor(**OPTIONS, encoder_model=encoder, lora_rank=2, early_stopping=False).fit(TEXTS, range(8))
    reg.partial_fit(TEXTS, range(8))
    assert reg.predict(TEXTS).shape == (8,)


def test_trained_parameters_are_few(encoder):
    """Gradients and optimiser state exist for the adapters and heads only."""
    clf = fit(encoder, lora_rank=1, others_lr=1e-3)
    optimizer = clf.net_.optimizer_
    held = sum(state["exp_avg"].numel() for state in optimizer.state.values())
    heads = sum(p.numel() for p in clf.model_.parameters()) - sum(p.numel() for p in clf.model_.encoder.parameters())
    width, wide = TINY_BERT["hidden_size"], TINY_BERT["intermediate_size"]
    assert held <= heads + 2 * (4 * 2 * width + 2 * (width + wide))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze_encoder": True}, "lora_rank=4 trains adapters of the encoder, which freeze_encoder=True"),
        ({"preset": "fast"}, "preset='fast' freezes"),
        ({"lora_rank": None, "lora_alpha": 8}, "lora_alpha=8 has no effect with lora_rank=None"),
        ({"lora_rank": None, "lora_target": ["query"]}, "lora_target=.* has no effect with lora_rank=None"),
        ({"lora_target": ["q_proj"]}, "names no linear layer .*choose ends of names from dense, key, query, value"),
        ({"freeze_encoder": 2}, "above its 2 frozen layers"),
    ],
)
def test_wrong_use_raises(encoder, options, message):
    with pytest.raises(ValueError, match=message):
        fit(encoder, **options)


def test_save_adapter_needs_an_adapter_of_a_named_encoder(encoder, tmp_path):
    with pytest.raises(ValueError, match="fitted with lora_rank=None, or loaded"):
        fit(encoder, lora_rank=None).save_adapter(tmp_path / "adapter")
    options = {**OPTIONS, "encoder_config": TINY_BERT, "encoder_model": None}
    with pytest.raises(ValueError, match="belongs to an encoder that can be loaded again"):
        GLiClassClassifier(**options, lora_rank=2).fit(TEXTS, Y).save_adapter(tmp_path / "adapter")
    with pytest.raises(ValueError, match="holds a model"):
        fit(encoder).save_adapter(encoder)
    assert not (tmp_path / "adapter").exists()


def test_adapter_of_another_encoder_raises(encoder, tmp_path):
    clf = fit(encoder)
    clf.save_adapter(tmp_path)
    path = tmp_path / "adapter_config.json"
    text = path.read_text()
    path.write_text(text.replace('"LORA"', '"IA3"'))
    with pytest.raises(ValueError, match="peft_type='IA3'"):
        GLiClassClassifier(encoder_model=str(tmp_path)).fit(TEXTS, Y)
    path.write_text(text.replace("encoder.layer.1.attention.self.query", "encoder.layer.1.attention.self.other"))
    with pytest.raises(ValueError, match="does not match its encoder"):
        GLiClassClassifier(encoder_model=str(tmp_path)).fit(TEXTS, Y)
