"""Task descriptions and in-context examples, against the pipeline of gliclass and NumPy formulas."""

import pickle
from itertools import chain, product

import numpy as np
import pytest
from reference_checkpoints import ARCHITECTURES, multi_label_pipeline, save_reference
from sampling import sampled
from sklearn.base import clone
from sklearn.metrics.pairwise import cosine_similarity

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor
from sklearn_gliclass.data.examples import MIN_EXAMPLE_TOKENS
from sklearn_gliclass.in_context import fitted_instructions
from sklearn_gliclass.testing import TINY

TEXTS = ["the goal was late", "the vote is near", "a goal and a match, and a law", "a law", "a"]
LABEL_SETS = [
    ["ball games", "politics", "weather report"],
    ["good", "bad"],
    ["sentiment.good", "sentiment.bad", "topic.law", "topic.late match", "near"],
]
PROMPT = "Classify the text by its topic:"
UNI = {**TINY, "random_state": 0, "architecture_type": "uni-encoder"}
UNTRAINED = {**UNI, "max_epochs": 0}
Y = ["a", "b", "a", "b", "b"]
EXAMPLES = [{"text": "a late match", "labels": "a"}, {"text": "the law", "labels": ["b"]}]


def examples_for(labels):
    return [
        {"text": "a late match and a goal", "labels": labels[:1]},
        {"text": "the law is near", "labels": labels[1:3]},
    ]


def save(folder, architecture, prompt_first, with_example_token=True):
    texts = [*TEXTS, PROMPT, "Labels:", *chain(*LABEL_SETS)]
    return save_reference(folder, architecture, texts, with_example_token, prompt_first=prompt_first)


PLACES = ["prompt last", "prompt first"]


@pytest.mark.parametrize(("architecture", "place"), sampled(product(ARCHITECTURES, PLACES), 8))
def test_same_logits_as_the_pipeline(architecture, place, tmp_path):
    prompt_first = place == "prompt first"
    pipeline = multi_label_pipeline(*save(tmp_path, architecture, prompt_first))
    clf = GLiClassClassifier.from_pretrained(
        tmp_path, problem_type="multi_label_classification", max_num_classes=25, max_length=128
    )
    for labels in LABEL_SETS:
        given = {"prompt": PROMPT}
        if architecture != "bi-encoder":
            given["examples"] = examples_for(labels)
        ours = clone(clf).set_params(**given).fit(None, labels).decision_function(TEXTS)
        rows = pipeline.get_embeddings(TEXTS, labels, batch_size=2, **given)
        theirs = np.array([row["logits"][: len(labels)] for row in rows])
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())
        plain = clone(clf).fit(None, labels).decision_function(TEXTS)
        assert np.abs(ours - plain).max() > 1e-3 * np.abs(plain).max()


def sequence(clf, text):
    """Tokens of the sequence that the model reads."""
    layout = clf.fitted_.layout(instructions=fitted_instructions(clf))
    (ids,) = layout.batch([layout.tokenize([text])[0]], [np.arange(len(clf.label_names_))])["input_ids"]
    return clf.tokenizer_.convert_ids_to_tokens(ids)


def test_order_of_the_tokens():
    clf = GLiClassClassifier(**UNTRAINED, prompt="law?", examples=EXAMPLES).fit(TEXTS, Y)
    joined = "".join(sequence(clf, "a goal")).replace("Ġ", " ").replace("Ċ", "\n")
    body = joined.removeprefix("[CLS]").removesuffix("[SEP]")
    assert body.replace(" ", "") == (
        "agoal<<LABEL>>a<<LABEL>>b<<SEP>>law?<<EXAMPLE>>alatematchlabels:a<<EXAMPLE>>thelawlabels:b<<SEP>>"
    )


def test_control_tokens_in_prompt_and_examples_are_text():
    text = "<<LABEL>> <<EXAMPLE>> <<SEP>> [SEP]"
    clf = GLiClassClassifier(
        **UNTRAINED, prompt=text, examples=[{"text": text, "labels": "a"}], label_names={"a": "x", "b": "y"}
    ).fit(TEXTS, Y)
    tokens = sequence(clf, text)
    assert [tokens.count(token) for token in ("<<LABEL>>", "<<EXAMPLE>>", "<<SEP>>", "[SEP]")] == [2, 1, 2, 1]


def test_examples_are_shortened_before_the_text_and_labels_never():
    long = [{"text": "goal match " * 20, "labels": "a"}, {"text": "law vote", "labels": "b"}]
    names = {"a": "x", "b": "y"}
    clf = GLiClassClassifier(**UNTRAINED, examples=long, max_length=48, label_names=names).fit(TEXTS, Y)
    counts = {}
    for text in ("late", "late late late late late", "late " * 100):
        tokens = [token.strip("Ġ") for token in sequence(clf, text)]
        start = tokens.index("<<EXAMPLE>>")
        counts[text] = tokens[:start].count("late"), sum(t in ("goal", "match") for t in tokens[start:])
        assert len(tokens) <= 48
        assert tokens[start:].count("x") + tokens[start:].count("y") == 2
        assert [t for t in tokens[start:] if t in ("law", "vote")] == ["law", "vote"]
    (first, long_example), (second, shorter), (third, least) = counts.values()
    assert (first, second) == (1, 5)
    assert long_example - shorter == 4
    assert least == MIN_EXAMPLE_TOKENS
    assert third > 5


def test_result_does_not_depend_on_the_batch():
    long = [{"text": "goal match " * 20, "labels": "a"}, *EXAMPLES]
    clf = GLiClassClassifier(**UNI, examples=long, prompt=PROMPT, max_length=128).fit(TEXTS, Y)
    texts = [*TEXTS, "a late law " * 12, "vote " * 300]
    with pytest.warns(UserWarning, match="1 of 7 texts"):
        together = clf.predict_proba(texts)
    single = np.vstack([clf.predict_proba([text]) for text in texts[:-1]])
    np.testing.assert_allclose(together[:-1], single, atol=1e-5)


@pytest.mark.parametrize(
    "examples",
    [
        [{"text": "a late match", "labels": ["a"]}, {"text": "the law", "true_labels": "b"}],
        (["a late match", "the law"], ["a", "b"]),
        (np.array(["a late match", "the law"]), [["a"], ["b"]]),
        (["a late match", "the law"], np.eye(2)),
        lambda texts: [EXAMPLES] * len(texts),
    ],
    ids=["dicts", "classes", "lists", "indicators", "callable"],
)
def test_forms_of_examples_are_equal(examples):
    expected = GLiClassClassifier(**UNI, examples=EXAMPLES).fit(TEXTS, Y).predict_proba(TEXTS)
    np.testing.assert_array_equal(
        GLiClassClassifier(**UNI, examples=examples).fit(TEXTS, Y).predict_proba(TEXTS), expected
    )


def test_labels_of_examples_are_read_by_their_label_names():
    names = {"a": "match", "b": "law"}
    clf = GLiClassClassifier(**UNTRAINED, examples=EXAMPLES, label_names=names).fit(TEXTS, Y)
    tokens = [token.strip("Ġ") for token in sequence(clf, "late")]
    assert tokens[tokens.index("<<EXAMPLE>>") :].count("match") == 2  # of the text, and the label


def test_nearest_examples_are_those_of_the_largest_cosines():
    clf = GLiClassClassifier(**UNI, examples="nearest", n_examples=2).fit(TEXTS, Y)
    texts = [*TEXTS, "a new match"]
    found = clf.predict_proba(texts)
    similarity = cosine_similarity(clf.set_params(examples=None, n_examples=3).transform(texts))

    def nearest(given):
        rows = []
        for text in given:
            order = np.argsort(-similarity[texts.index(text), : len(TEXTS)])
            near = [TEXTS[row] for row in order if TEXTS[row] != text][:2]
            rows.append([{"text": other, "labels": Y[TEXTS.index(other)]} for other in near])
        return rows

    np.testing.assert_allclose(clf.set_params(examples=nearest).predict_proba(texts), found, atol=1e-6)


def test_nearest_examples_survive_storage(tmp_path):
    clf = GLiClassClassifier(**UNI, examples="nearest", n_examples=2, prompt=PROMPT).fit(TEXTS, Y)
    expected = clf.predict_proba(TEXTS)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(clf)).predict_proba(TEXTS), expected)
    clf.save_pretrained(tmp_path)
    np.testing.assert_allclose(GLiClassClassifier.from_pretrained(tmp_path).predict_proba(TEXTS), expected, atol=1e-6)
    clf.partial_fit(["a new match"], ["a"], classes=["a", "b"])
    assert [row["text"] for row in clf.examples_] == sorted([*TEXTS, "a new match"])
    other = clf.with_labels({"a": "match", "c": "news"})
    assert {tuple(row["labels"]) for row in other.examples_} == {("match",)}
    assert other.predict_proba(TEXTS).shape == (5, 2)


def test_prompt_of_a_regressor_precedes_the_text():
    reg = GLiClassRegressor(**TINY, random_state=0).fit(TEXTS, range(5))
    expected = reg.predict([f"law: {text}" for text in TEXTS])
    assert not np.allclose(reg.predict(TEXTS), expected, rtol=1e-3)
    np.testing.assert_allclose(reg.set_params(prompt="law:").predict(TEXTS), expected, rtol=1e-5)


def test_cached_hidden_states_depend_on_prompt_and_examples(tmp_path):
    options = {**UNI, "freeze_encoder": True, "memory": str(tmp_path)}
    for given in ({}, {"prompt": "law:"}, {"examples": EXAMPLES}, {"examples": EXAMPLES[:1]}, {"examples": "nearest"}):
        cached = GLiClassClassifier(**options, **given).fit(TEXTS, Y).predict_proba(TEXTS)
        computed = GLiClassClassifier(**{**options, "memory": None}, **given).fit(TEXTS, Y).predict_proba(TEXTS)
        np.testing.assert_allclose(cached, computed, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"architecture_type": "bi-encoder", "examples": EXAMPLES},
            "examples have no place in architecture_type='bi-e",
        ),
        (
            {"examples": [{"text": "late", "labels": ["c", "a"]}]},
            r"label\(s\) \['c'\], which are not among the 2 classes",
        ),
        (
            {"examples": EXAMPLES, "max_length": 24},
            r"examples take at least \d+ tokens and the labels \d+ of max_length=24",
        ),
        ({"prompt": PROMPT * 9, "max_length": 48}, r"where prompt takes \d+\). Raise max_length"),
        ({"examples": [{"labels": "a"}]}, 'examples must be a list of {"text"'),
        ({"examples": (["late"], ["a", "b"])}, "examples have 1 texts and a y of 2 rows"),
        ({"examples": lambda texts: []}, "returned 0 lists of examples for 5 texts"),
        ({"n_examples": 2}, "n_examples=2 has no effect with examples=None"),
    ],
)
def test_wrong_use_raises(options, message):
    with pytest.raises(ValueError, match=message):
        GLiClassClassifier(**{**UNI, **options}).fit(TEXTS, Y)


def test_checkpoint_without_the_token_of_examples_raises(tmp_path):
    save(tmp_path, "uni-encoder", True, with_example_token=False)
    clf = GLiClassClassifier.from_pretrained(tmp_path, examples=EXAMPLES)
    with pytest.raises(ValueError, match="need the token <<EXAMPLE>>, which the tokenizer of this model does not have"):
        clf.fit(None, ["a", "b"])


def test_nearest_examples_need_texts_of_fit():
    clf = GLiClassClassifier(**UNI).fit(TEXTS, Y)
    with pytest.raises(ValueError, match="chooses among the texts of fit"):
        clf.set_params(examples="nearest").predict(TEXTS)


def test_export_to_onnx_raises(tmp_path):
    clf = GLiClassClassifier(**TINY, prompt="law:").fit(TEXTS, Y)
    with pytest.raises(ValueError, match="exported models read texts and labels only"):
        clf.export_onnx(tmp_path / "model")


@pytest.mark.parametrize("prompt_first", [False, True], ids=["prompt last", "prompt first"])
@pytest.mark.parametrize("architecture", ["uni-encoder", "bi-encoder", "bi-encoder-fused"])
def test_text_is_located_beside_prompt_and_examples(architecture, prompt_first):
    options = {**UNTRAINED, "architecture_type": architecture, "prompt": "law vote:"}
    if architecture != "bi-encoder":
        options |= {"prompt_first": prompt_first, "examples": EXAMPLES}
    clf = GLiClassClassifier(**options).fit(TEXTS, Y)
    layout = clf.fitted_.layout(instructions=fitted_instructions(clf))
    for text in ("the goal was near", "goal " * 300):
        where, spans = layout.locate(text, np.arange(2))
        inputs = layout.batch([layout.tokenize([text])[0]], [np.arange(2)])
        tokens = clf.tokenizer_.convert_ids_to_tokens(inputs["input_ids"][0][where])
        words = [text[start:end].strip() for start, end in spans]
        assert [token.strip("Ġ") for token in tokens[:-1]] == words[:-1]
        assert tokens[-1].strip("Ġ").startswith(words[-1])  # a token may go on into the prompt
        assert spans[-1][1] <= len(text)
