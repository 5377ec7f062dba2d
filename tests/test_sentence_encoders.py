"""Encoders of several families, and sentence encoders, against transformers and sentence-transformers."""

import itertools
import json

import numpy as np
import pytest
import torch
from sampling import sampled
from transformers import CONFIG_MAPPING, AutoModel, T5EncoderModel

from sklearn_gliclass import GLiClassClassifier, GLiClassModelConfig, GLiClassRegressor
from sklearn_gliclass.data.tokenizer import train_tokenizer
from sklearn_gliclass.testing import TINY_ENCODERS

TEXTS = ["the goal was late", "the vote is near", "a goal and a match", "a law and a vote"] * 2
Y = ["sports", "politics"] * 4
OPTIONS = {"max_epochs": 1, "device": "cpu", "random_state": 0}
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
DECODER = {**SIZES, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 128}
FAMILIES = {
    **{name: TINY_ENCODERS[name] for name in ("bert", "deberta-v2", "modernbert", "t5")},
    "deberta": {"model_type": "deberta", **SIZES, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "xlm-roberta": {"model_type": "xlm-roberta", **SIZES, "max_position_embeddings": 130},
    "mpnet": {"model_type": "mpnet", **SIZES, "max_position_embeddings": 130},
    "distilbert": {"model_type": "distilbert", "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2},
    "qwen3": {"model_type": "qwen3", **DECODER},
    "llama": {"model_type": "llama", **DECODER},
}


def save_encoder(folder, family="bert"):
    """Save a tiny random encoder with its tokenizer, and return the folder's name."""
    tokenizer = train_tokenizer([*TEXTS, *Y, "query: "])
    tokenizer.save_pretrained(folder)
    special = {"pad_token_id": 0, "vocab_size": len(tokenizer)}
    options = {name: value for name, value in FAMILIES[family].items() if name != "model_type"}
    config = CONFIG_MAPPING[family](**{**special, **options})
    torch.manual_seed(0)
    model = T5EncoderModel(config) if family == "t5" else AutoModel.from_config(config)
    model.save_pretrained(folder)
    return str(folder)


def save_sentence_encoder(folder, family="bert", pooling="mean_tokens", prompt=None, max_length=None, modules=()):
    """Save an encoder with the files of sentence-transformers."""
    save_encoder(folder, family)
    names = ["Transformer", "Pooling", "Normalize", *modules]
    entries = [
        {"idx": i, "name": str(i), "path": f"{i}_{name}" if i else "", "type": f"sentence_transformers.models.{name}"}
        for i, name in enumerate(names)
    ]
    options = {f"pooling_mode_{mode}": mode == pooling for mode in ("mean_tokens", "cls_token", "lasttoken")}
    prompts = {"prompts": {"own": prompt}, "default_prompt_name": "own"} if prompt else {}
    files = {
        "modules.json": entries,
        "1_Pooling/config.json": {"word_embedding_dimension": 32, **options},
        "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
        "config_sentence_transformers.json": prompts,
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    (folder / "2_Normalize").mkdir()
    return str(folder)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("family", "architecture"), sampled(itertools.product(FAMILIES, ["bi-encoder", "uni-encoder"]), len(FAMILIES))
)
def test_encoders_of_each_family_are_fitted_and_stored(family, architecture, tmp_path):
    encoder = save_encoder(tmp_path / "encoder", family)
    clf = GLiClassClassifier(encoder_model=encoder, architecture_type=architecture, lr=1e-3, **OPTIONS)
    untrained = {name: p.clone() for name, p in clf.set_params(max_epochs=0).fit(TEXTS, Y).model_.named_parameters()}
    clf.set_params(max_epochs=1).fit(TEXTS, Y)
    trained = clf.model_.encoder.named_parameters(prefix="model.encoder_model")
    assert any(not torch.equal(weight, untrained[name]) for name, weight in trained)
    expected = clf.predict_proba([*TEXTS, "a late vote and a late match and a law"])
    np.testing.assert_allclose(clf.predict_proba(TEXTS[:1]), expected[:1], atol=1e-5)
    clf.save_pretrained(tmp_path / "saved")
    loaded = GLiClassClassifier.from_pretrained(tmp_path / "saved", device="cpu")
    np.testing.assert_allclose(loaded.predict_proba(TEXTS), expected[: len(TEXTS)], atol=1e-6)


@pytest.mark.parametrize(
    ("family", "pooling", "prompt"),
    [
        ("bert", "mean_tokens", None),
        ("bert", "cls_token", "query: "),
        ("xlm-roberta", "mean_tokens", "query: "),
        ("mpnet", "mean_tokens", None),
        ("deberta-v2", "cls_token", None),
        ("modernbert", "mean_tokens", "the:"),
        ("t5", "mean_tokens", None),
        ("qwen3", "lasttoken", "Instruct: a law\nQuery:"),
    ],
)
def test_embeddings_are_those_of_sentence_transformers(family, pooling, prompt, tmp_path):
    library = pytest.importorskip("sentence_transformers")
    folder = save_sentence_encoder(tmp_path, family, pooling, prompt, max_length=48)
    texts = [*TEXTS, "a late vote " * 60]
    expected = library.SentenceTransformer(folder, device="cpu").encode(texts)
    options = {**OPTIONS, "max_epochs": 0, "long_texts": "truncate"}
    clf = GLiClassClassifier(encoder_model=folder, pooling_strategy="auto", **options)
    clf.fit(TEXTS, Y)
    assert clf.max_length_ == 48
    with pytest.warns(UserWarning, match="1 of 9 texts"):
        found = clf.transform(texts)
    np.testing.assert_allclose(unit(found), expected, atol=1e-6)


@pytest.mark.parametrize(("mode", "name"), [("cls", "first"), ("mean", "avg"), ("max", "max"), ("lasttoken", "last")])
def test_pooling_auto_reads_new_files_too(mode, name, tmp_path):
    folder = save_sentence_encoder(tmp_path)
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": mode}))
    clf = GLiClassClassifier(encoder_model=folder, pooling_strategy="auto", **OPTIONS).fit(TEXTS, Y)
    assert clf.config_.pooling_strategy == name


def test_pooling_auto_of_other_encoders(tmp_path):
    encoder = save_encoder(tmp_path)
    options = {**OPTIONS, "pooling_strategy": "auto"}
    assert GLiClassClassifier(encoder_model=encoder, **options).fit(TEXTS, Y).config_.pooling_strategy == "avg"
    scratch = {**options, "encoder_config": TINY_ENCODERS["bert"]}
    assert GLiClassRegressor(**scratch).fit(TEXTS, range(8)).config_.pooling_strategy == "avg"
    cross = GLiClassClassifier(**scratch, scorer_type="cross-attn", architecture_type="uni-encoder").fit(TEXTS, Y)
    assert cross.config_.pooling_strategy == "pass"
    checkpoint = tmp_path / "checkpoint"
    GLiClassClassifier(**{**scratch, "pooling_strategy": "max"}).fit(TEXTS, Y).save_pretrained(checkpoint)
    clf = GLiClassClassifier(pretrained=str(checkpoint), **options).fit(TEXTS, Y)
    assert clf.config_.pooling_strategy == "max"


def test_default_prompt_precedes_texts_and_labels(tmp_path):
    folder = save_sentence_encoder(tmp_path / "encoder", prompt="query: ")
    options = {**OPTIONS, "encoder_model": folder, "max_epochs": 0}
    own = GLiClassClassifier(**options, pooling_strategy="auto").fit(TEXTS, Y)
    names = {label: f"query: {label}" for label in Y}
    plain = GLiClassClassifier(**options, label_names=names).fit([f"query: {text}" for text in TEXTS], Y)
    expected = plain.predict_proba([f"query: {text}" for text in TEXTS])
    np.testing.assert_allclose(own.predict_proba(TEXTS), expected, atol=1e-6)
    np.testing.assert_allclose(own.set_params(prompt="query:").predict_proba(TEXTS), expected, atol=1e-6)
    assert not np.allclose(own.set_params(prompt="").predict_proba(TEXTS), expected, atol=1e-4)
    own.set_params(prompt=None).save_pretrained(tmp_path / "saved")
    loaded = GLiClassClassifier.from_pretrained(tmp_path / "saved", device="cpu")
    np.testing.assert_allclose(loaded.predict_proba(TEXTS), expected, atol=1e-6)
    own.save_encoder(tmp_path / "again")
    again = GLiClassClassifier(**{**options, "encoder_model": str(tmp_path / "again")}, pooling_strategy="auto")
    np.testing.assert_allclose(again.fit(TEXTS, Y).transform(TEXTS), own.transform(TEXTS), atol=1e-6)


def test_what_cannot_be_read_raises(tmp_path):
    def fit(name, content=None, **options):
        folder = save_sentence_encoder(tmp_path / name, **options)
        if content is not None:
            (tmp_path / name / "1_Pooling" / "config.json").write_text(json.dumps(content))
        return GLiClassClassifier(encoder_model=folder, pooling_strategy="auto", **OPTIONS).fit(TEXTS, Y)

    with pytest.raises(ValueError, match=r"has the module\(s\) Dense after its transformer"):
        fit("dense", modules=["Dense"])
    with pytest.raises(ValueError, match=r"has the pooling \['weightedmean'\], and pooling_strategy='auto' reads"):
        fit("weighted", {"pooling_mode_weightedmean_tokens": True})
    with pytest.raises(ValueError, match="leaves its prompt 'query: ' out of the pooling"):
        fit("instructor", {"pooling_mode": "mean", "include_prompt": False}, prompt="query: ")
    damaged = GLiClassClassifier(encoder_model=save_sentence_encoder(tmp_path / "damaged"), **OPTIONS)
    (tmp_path / "damaged" / "modules.json").write_text("{}")
    with pytest.raises(OSError, match="must hold a JSON array"):
        damaged.set_params(pooling_strategy="auto").fit(TEXTS, Y)
    other = save_sentence_encoder(tmp_path / "other", pooling="cls_token")
    clf = GLiClassClassifier(encoder_model=other, label_model_name=str(tmp_path / "weighted"), **OPTIONS)
    with pytest.raises(ValueError, match="has the pooling"):
        clf.set_params(pooling_strategy="auto").fit(TEXTS, Y)
    with pytest.raises(ValueError, match="resolves to 'first' for the text encoder and to 'avg'"):
        clf.set_params(label_model_name=save_sentence_encoder(tmp_path / "mean")).fit(TEXTS, Y)
    with pytest.raises(ValueError, match="text_prefix='query: ' of the configuration"):
        GLiClassClassifier.from_config(GLiClassModelConfig(text_prefix="query: "))
