"""The app: answers equal those of the estimator, and what is not valid gets a reason."""

import json

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
from fastapi.testclient import TestClient

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor
from sklearn_gliclass.serve import create_app
from sklearn_gliclass.serve.answers import to_json
from sklearn_gliclass.testing import TINY

TEXTS = ["a goal", "a vote", "late goal", "new law"]
LABELS = ["sports", "politics", "sports", "politics"]


@pytest.fixture(scope="module")
def clf():
    return GLiClassClassifier(**TINY, random_state=0).fit(TEXTS, LABELS)


@pytest.fixture(scope="module")
def client(clf):
    with TestClient(create_app(clf, max_texts=5, max_characters=50, max_labels=5, max_label_sets=2)) as client:
        yield client


def test_predictions_equal_those_of_the_estimator(client, clf):
    answer = client.post("/predict", json={"texts": TEXTS})
    assert (answer.status_code, answer.json()) == (200, {"predictions": clf.predict(TEXTS).tolist()})
    answer = client.post("/predict_proba", json={"texts": TEXTS}).json()
    assert answer["labels"] == clf.classes_.tolist()
    np.testing.assert_allclose(answer["probabilities"], clf.predict_proba(TEXTS), atol=1e-6)
    assert client.get("/labels").json() == {"labels": ["politics", "sports"], "multi_label": False}


def test_labels_of_a_request_replace_those_of_the_model(client, clf):
    answer = client.post("/labels", json={"texts": TEXTS, "labels": ["a law", "a goal", "a vote"]}).json()
    assert answer["labels"] == ["a law", "a goal", "a vote"]
    probabilities = np.array(answer["probabilities"])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert answer["predictions"] == [answer["labels"][column] for column in probabilities.argmax(axis=1)]
    again = client.post("/labels", json={"texts": TEXTS, "labels": LABELS[1::-1]}).json()
    np.testing.assert_allclose(again["probabilities"], clf.predict_proba(TEXTS), atol=1e-6)
    assert client.post("/predict", json={"texts": TEXTS}).json()["predictions"] == clf.predict(TEXTS).tolist()


def test_label_sets_are_bounded(client):
    for number in range(5):
        assert client.post("/labels", json={"texts": ["a"], "labels": ["goal", f"vote {number}"]}).status_code == 200
    assert "gliclass_label_sets 2.0" in client.get("/metrics").text


def test_multi_label_answers_lists_of_labels():
    y = pd.DataFrame({"sports": [1, 0, 1, 0], "politics": [0, 1, 1, 0]})
    clf = GLiClassClassifier(**TINY, random_state=0, threshold=0.4).fit(TEXTS, y)
    expected = [clf.classes_[row.astype(bool)].tolist() for row in clf.predict(TEXTS)]
    with TestClient(create_app(clf)) as client:
        assert client.post("/predict", json={"texts": TEXTS}).json()["predictions"] == expected
        answer = client.post("/labels", json={"texts": TEXTS, "labels": ["sports", "politics"]}).json()
        assert [sorted(labels) for labels in answer["predictions"]] == [sorted(labels) for labels in expected]


@pytest.mark.parametrize("threshold", [[0.2, 0.9], {"sports": 0.2, "politics": 0.9}])
def test_thresholds_of_classes_do_not_hold_for_other_labels(threshold):
    y = pd.DataFrame({"sports": [1, 0, 1, 0], "politics": [0, 1, 1, 0]})
    clf = GLiClassClassifier(**TINY, random_state=0, threshold=threshold).fit(TEXTS, y)
    expected = [clf.classes_[row.astype(bool)].tolist() for row in clf.predict(TEXTS)]
    with TestClient(create_app(clf)) as client:
        answer = client.post("/labels", json={"texts": TEXTS, "labels": ["a law", "a goal", "sports"]}).json()
        assert client.post("/predict", json={"texts": TEXTS}).json()["predictions"] == expected
    chosen = np.array(answer["probabilities"]) >= 0.5
    assert answer["predictions"] == [[answer["labels"][column] for column in np.flatnonzero(row)] for row in chosen]


@pytest.mark.parametrize("classes", [[0, 1], [True, False]])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_classes_that_are_not_texts_are_answered_as_they_are(classes):
    clf = GLiClassClassifier(**TINY, random_state=0).fit(TEXTS, np.array(classes)[[0, 1, 0, 1]])
    with TestClient(create_app(clf)) as client:
        answer = client.post("/predict", json={"texts": TEXTS}).json()
    assert answer["predictions"] == clf.predict(TEXTS).tolist()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.array(["2020-01-01"], "M8[D]"), ["2020-01-01"]),
        (np.array([b"a", 1, 2.5, None, "x"], dtype=object), ["a", 1, 2.5, None, "x"]),
        ([np.array([1]), np.array(["a"])], [[1], ["a"]]),
        (np.float32(0.5), 0.5),
        ({1, 2}, "{1, 2}"),
    ],
)
def test_values_have_a_json_form(value, expected):
    assert to_json(value) == expected


@pytest.mark.parametrize("y", [[1.0, 2.0, 3.0, 4.0], [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]])
def test_regressor_has_predict_only(y):
    reg = GLiClassRegressor(**TINY, random_state=0).fit(TEXTS, np.array(y))
    with TestClient(create_app(reg)) as client:
        answer = client.post("/predict", json={"texts": TEXTS}).json()
        np.testing.assert_allclose(answer["predictions"], reg.predict(TEXTS), rtol=1e-5)
        assert client.post("/predict_proba", json={"texts": TEXTS}).status_code == 404
        assert client.get("/labels").status_code == 404


def test_tables_are_sent_as_rows():
    table = pd.DataFrame({"title": TEXTS, "year": [1, 2, 3, None]}).astype({"year": object})
    clf = GLiClassClassifier(**TINY, random_state=0).fit(table, LABELS)
    rows = [{"title": title, "year": year} for title, year in zip(TEXTS, [1, 2, 3, None], strict=True)]
    with TestClient(create_app(clf)) as client:
        answer = client.post("/predict_proba", json={"rows": rows}).json()
        np.testing.assert_allclose(answer["probabilities"], clf.predict_proba(table), atol=1e-6)
        swapped = [dict(reversed(row.items())) for row in rows]
        assert client.post("/predict_proba", json={"rows": swapped}).json() == answer
        del rows[3]["year"]
        assert client.post("/predict_proba", json={"rows": rows}).json() == answer
        wrong = client.post("/predict", json={"rows": [{"name": "x"}]})
        assert wrong.status_code == 422
        assert "the columns of the model are ['title', 'year']" in wrong.json()["detail"]
        long = client.post("/predict", json={"rows": [{"title": "x" * 30_000}]})
        assert (long.status_code, "at most 20000" in long.json()["detail"]) == (422, True)
        assert client.post("/predict", json={"texts": TEXTS}).status_code == 422


def test_arrays_are_sent_as_rows_of_cells():
    clf = GLiClassClassifier(**TINY, random_state=0).fit(np.array([["a", 1], ["b", 2]] * 2, dtype=object), LABELS)
    with TestClient(create_app(clf)) as client:
        assert client.post("/predict", json={"rows": [["a", 1]]}).status_code == 200
        assert "reads 2 columns" in client.post("/predict", json={"rows": [["a"]]}).json()["detail"]


@pytest.mark.parametrize(
    ("path", "content", "reason"),
    [
        ("/predict", {}, "texts: Field required"),
        ("/predict", [], "valid dict"),
        ("/predict", {"texts": []}, "at least 1"),
        ("/predict", {"texts": ["a"] * 6}, "at most 5"),
        ("/predict", {"texts": "a"}, "valid list"),
        ("/predict", {"texts": [1]}, "texts[0]: Input should be a valid string"),
        ("/predict", {"texts": [None]}, "valid string"),
        ("/predict", {"texts": [["a"]]}, "valid string"),
        ("/predict", {"texts": ["a" * 51]}, "at most 50 characters"),
        ("/predict", {"texts": ["a"], "text": 1}, "text: Extra inputs"),
        ("/predict", {"texts": ["a"], "x" * 500: 1}, "Extra inputs"),
        ("/predict", b'{"texts": ["\\ud800"]}', "unicode"),
        ("/predict", b'{"texts": ["a", "b"', "not valid JSON, at character 19: Expecting"),
        ("/labels", {"texts": ["a"]}, "labels: Field required"),
        ("/labels", {"texts": ["a"], "labels": ["a"]}, "at least 2"),
        ("/labels", {"texts": ["a"], "labels": list("abcdef")}, "at most 5"),
        ("/labels", {"texts": ["a"], "labels": ["a", "x" * 201]}, "at most 200"),
        ("/labels", {"texts": ["a"], "labels": ["a", ""]}, "at least 1"),
        ("/labels", {"texts": ["a"], "labels": ["goal", "goal"]}, "got ['goal'] more than once"),
        ("/labels", {"texts": ["a"], "labels": ["goal", "Goal"]}, "same tokens"),
        ("/labels", {"texts": ["a"], "labels": ["goal", " \t "]}, "match pattern"),
    ],
)
def test_invalid_requests_get_a_reason(client, path, content, reason):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    answer = client.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert reason in answer.json()["detail"]
    assert len(answer.content) < 1000, "the input is not repeated"


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b'{"texts":' * 50_000, b'{"texts": [' + b"1" * 10_000 + b"]}", b"\xff\xfe", b'"' + b"\\" * 9],
)
def test_damaged_json_is_an_error_of_the_client(client, body):
    answer = client.post("/predict", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert "JSON" in answer.json()["detail"]


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "\xff\xfe"])
def test_missing_content_type_is_named(client, kind):
    headers = {} if kind is None else {"content-type": kind.encode("latin-1")}
    answer = client.post("/predict", content=b'{"texts": ["a goal"]}', headers=headers)
    assert answer.status_code == 422
    assert answer.json()["detail"] == "Send the body as JSON, with the header content-type: application/json."


def test_redirections_name_no_host_of_the_request(client):
    answer = client.get("/health/", headers={"host": "evil.example"}, follow_redirects=False)
    assert answer.status_code == 404


@pytest.mark.parametrize("text", ["", "\0", "\x1b[2J\r\n", "\u202e\ufeff", "<<LABEL>><<SEP>>", "%s %n {0}", "🙂" * 9])
def test_unusual_texts_are_answered(client, clf, text):
    answer = client.post("/predict_proba", json={"texts": [text, "a goal"]}).json()
    np.testing.assert_allclose(answer["probabilities"], clf.predict_proba([text, "a goal"]), atol=1e-6)


def test_large_bodies_are_rejected_before_they_are_parsed(clf):
    with TestClient(create_app(clf, max_body_bytes=1000)) as client:
        for size in (1001, 5000, 100_000):
            answer = client.post("/predict", content=b"x" * size)
            assert (answer.status_code, "1000 bytes" in answer.json()["detail"]) == (413, True)
        chunks = client.post("/predict", content=(b"x" * 100 for _ in range(20)))
        assert chunks.status_code == 413
        assert client.post("/predict", content=b"x", headers={"content-length": "-1"}).status_code == 413


def test_state_is_described(client):
    health = client.get("/health").json()
    assert (health["status"], health["estimator"]) == ("ok", "GLiClassClassifier")
    schema = client.get("/openapi.json").json()
    assert {"/predict", "/predict_proba", "/labels", "/health", "/metrics"} <= set(schema["paths"])
    assert schema["components"]["schemas"]["Request"]["properties"]["texts"]["maxItems"] == 5
    assert client.get("/docs").status_code == 200


def test_metrics_have_a_bounded_number_of_series(client):
    client.post("/predict", json={"texts": ["a"]})
    for number in range(20):
        assert client.get(f"/../../etc/passwd{number}").status_code == 404
    lines = client.get("/metrics").text.splitlines()
    requests = [line for line in lines if line.startswith("gliclass_requests_total{")]
    assert any('path="/predict",status="200"' in line for line in requests)
    assert sum('path="other"' in line for line in requests) == 1


def test_create_app_checks_its_arguments(clf):
    with pytest.raises(TypeError, match="got list"):
        create_app([])
    with pytest.raises(ValueError, match="not fitted"):
        create_app(GLiClassClassifier())
    with pytest.raises(ValueError, match="max_batch must be an integer of at least 1, got 0"):
        create_app(clf, max_batch=0)
    with pytest.raises(ValueError, match="max_wait must be a number"):
        create_app(clf, max_wait="1")
    with pytest.raises(ValueError, match="set max_queue to 356 or more"):
        create_app(clf, max_queue=100)


def test_missing_library_is_named(clf, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(ImportError, match=r'pip install "sklearn-gliclass\[serve\]"'):
        create_app(clf)


def test_with_labels_of_the_estimator_is_used(clf, monkeypatch):
    calls = []

    def with_labels(self, labels):
        calls.append(labels)
        return self

    monkeypatch.setattr(GLiClassClassifier, "with_labels", with_labels)
    with TestClient(create_app(clf)) as client:
        assert client.post("/labels", json={"texts": ["a"], "labels": ["x", "y"]}).status_code == 200
    assert calls == [["x", "y"]]


def test_several_targets_have_a_list_for_each_text():
    y = pd.DataFrame({"topic": LABELS, "mood": ["glad", "sad", "sad", "glad"]})
    clf = GLiClassClassifier(**TINY, random_state=0).fit(TEXTS, y)
    with TestClient(create_app(clf)) as client:
        assert client.post("/predict", json={"texts": TEXTS}).json() == {"predictions": clf.predict(TEXTS).tolist()}
        answer = client.post("/predict_proba", json={"texts": TEXTS[:2]}).json()
        assert answer["labels"] == [["politics", "sports"], ["glad", "sad"]]
        for place, values in enumerate(clf.predict_proba(TEXTS[:2])):
            np.testing.assert_allclose([row[place] for row in answer["probabilities"]], values, atol=1e-6)
        rejected = client.post("/labels", json={"texts": TEXTS[:1], "labels": ["goal", "vote"]})
        assert rejected.status_code == 422
        assert "the targets ['topic', 'mood']" in rejected.json()["detail"]
