"""The server as a process: load, overload, slow clients, SIGTERM."""

import http.client
import json
import socket
import threading
import time

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
pytest.importorskip("uvicorn")
from forked import needs_fork

from serving import Server, concurrently, post
from sklearn_gliclass import GLiClassClassifier
from sklearn_gliclass.serve.__main__ import main
from sklearn_gliclass.testing import TINY

TEXTS = ["a goal", "a vote", "late goal", "new law"]
LABELS = ["sports", "politics", "sports", "politics"]
N_CLIENTS = 200

pytestmark = needs_fork


@pytest.fixture(scope="module")
def clf():
    return GLiClassClassifier(**TINY, random_state=0).fit(TEXTS, LABELS)


@pytest.fixture(scope="module")
def folder(clf, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve") / "model"
    clf.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with Server(folder, folder.parent / "log", "--body-timeout", "1") as server:
        yield server


def test_no_answer_is_wrong_or_lost_with_many_clients(server, clf):
    texts = [[f"goal {number}", f"law {number % 7} vote"] for number in range(2 * N_CLIENTS)]
    expected = [clf.predict_proba(pair) for pair in texts]
    answers = concurrently(lambda pair: server.post("/predict_proba", {"texts": pair}), texts, N_CLIENTS)
    assert {status for status, _, _ in answers} == {200}
    for (_, _, answer), rows in zip(answers, expected, strict=True):
        assert answer["probabilities"] == [pytest.approx(row, abs=1e-5) for row in rows.tolist()]
    count = next(
        line for line in server.get("/metrics")[1].splitlines() if line.startswith("gliclass_batch_requests_count")
    )
    assert float(count.split()[1]) < len(texts), "requests were computed together"


def test_logs_are_json_without_texts(server):
    server.post("/predict", {"texts": ["secret words"]})
    server.get("/a%0d%0aINJECTED%1b[31m")
    time.sleep(0.2)
    logs = server.logs()
    requests = [entry for entry in logs if entry["message"] == "request"]
    assert {"time", "level", "request_id", "path", "status", "milliseconds"} <= set(requests[-1])
    assert not any("secret" in line for line in server.lines)


def test_slow_body_is_answered_and_does_not_block_others(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow:
        slow.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert server.post("/predict", {"texts": ["a"]})[0] == 200
        assert b"408" in slow.recv(100)


@pytest.mark.parametrize("start", [b"", b"GET /health HTTP/1.1\r\nHost: ", b"GET /x HTTP/1.1\r\nHost: x\r\n\r\nGET"])
def test_idle_connections_are_closed(server, start):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as idle:
        idle.sendall(start)
        while read(idle):
            pass


def test_clients_that_do_not_read_are_closed(server):
    request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as silent:
        silent.sendall(request * 1000)
        time.sleep(3)
        size = 0
        while part := read(silent):
            size += len(part)
        assert size < 1000 * len(server.get("/openapi.json")[1])


def read(connection) -> bytes:
    """Return received bytes; none if the connection was closed or reset."""
    try:
        return connection.recv(100_000)
    except ConnectionError:
        return b""


@pytest.mark.parametrize(
    "head",
    [
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"\0" * 50,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 400_000,
    ],
)
def test_damaged_requests_are_answered_or_closed(server, head):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        try:
            connection.sendall(head)
            answer = connection.recv(1000)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
    assert answer == b"" or answer.split()[1][:1] == b"4"
    assert server.get("/health")[0] == 200


def test_smuggled_request_is_not_answered(server):
    """A proxy that reads Content-Length would take the second request for a part of the first one's body."""
    lines = [
        b"POST /predict HTTP/1.1", b"Host: x", b"Content-Length: 40", b"Transfer-Encoding: chunked", b"", b"0", b"",
        b"GET /health HTTP/1.1", b"Host: x", b"", b"",
    ]  # fmt: skip
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(b"\r\n".join(lines))
        answer = b""
        while part := read(connection):
            answer += part
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1") == 1


def test_overload_is_answered_with_a_time(folder, tmp_path):
    options = ("--max-queue", "20", "--max-texts", "10", "--max-labels", "2", "--max-batch", "10")
    with Server(folder, tmp_path / "log", *options) as server:
        contents = [{"texts": [f"goal {number} {i}" for i in range(10)]} for number in range(300)]
        answers = concurrently(lambda content: server.post("/predict", content), contents, 100)
        statuses = [status for status, _, _ in answers]
        assert set(statuses) == {200, 503}
        for status, headers, answer in answers:
            if status == 503:
                assert 1 <= int(headers["retry-after"]) <= 60
                assert "queue is full" in answer["detail"]
        assert server.post("/predict", contents[0])[0] == 200


def test_sigterm_under_load_finishes_what_was_taken(folder, tmp_path):
    with Server(folder, tmp_path / "log") as server:
        answers, lost, stop = [], [], threading.Event()

        def client(number):
            while not stop.is_set():
                try:
                    answers.append(post(server.port, "/predict", {"texts": [f"goal {number}"] * 20}))
                except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
                    lost.append(error)
                    return

        clients = [threading.Thread(target=client, args=(number,)) for number in range(30)]
        for thread in clients:
            thread.start()
        time.sleep(0.7)
        server.stop()
        stop.set()
        for thread in clients:
            thread.join(30)
        logged = [entry["status"] for entry in server.logs() if entry["message"] == "request"]
    assert {status for status, _, _ in answers} == {200}
    assert len(logged) == len(answers), "each request that the server read was answered"
    assert all(isinstance(error, (ConnectionError, http.client.RemoteDisconnected)) for error in lost)


def test_start_fails_with_a_message(tmp_path, capsys):
    assert main([str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
