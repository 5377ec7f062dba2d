"""Serving: `python benchmarks/serving.py [--quick]`.

The server runs as a process on 127.0.0.1 with MiniLM and 10 labels. Clients in this process send one text per request
over kept connections. Throughput and latency of one client, of many clients with and without batching, and behaviour
at overload; each answer is compared with `predict_proba`. "CPU ms" is the processor time of the server per answer,
which varies less than the others on a busy machine.
"""

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np

import common


@contextlib.contextmanager
def server(folder, threads: int, *options):
    """Start a server process and yield its port; it is stopped with SIGTERM."""
    command = [sys.executable, "-m", "sklearn_gliclass.serve", str(folder), "--port", "0", "--threads", str(threads)]
    paths = os.pathsep.join([str(common.ROOT), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([*command, *options], stderr=log, env={**os.environ, "PYTHONPATH": paths})
        try:
            yield wait_for_port(process, log)
        finally:
            process.terminate()
            process.wait(60)


def wait_for_port(process, log) -> int:
    for _ in range(600):
        log.seek(0)
        if match := re.search(r"running on http://127\.0\.0\.1:(\d+)", text := log.read()):
            return int(match[1])
        if process.poll() is not None:
            raise SystemExit(text)
        time.sleep(0.1)
    raise SystemExit("the server did not start within 60 s")


async def client(port: int, texts: list[str], rows: list[int], results: list) -> None:
    """Send texts one after the other over one connection; append (row, status, seconds, answer)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for row in rows:
        body = json.dumps({"texts": [texts[row]]}).encode()
        start = time.perf_counter()
        writer.write(
            b"POST /predict_proba HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        answer = await reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))
        results.append((row, int(head[9:12]), time.perf_counter() - start, json.loads(answer)))
    writer.close()


async def load(port: int, texts: list[str], n_clients: int) -> tuple[list, float]:
    """Divide the texts among the clients; return the results and the seconds."""
    results, start = [], time.perf_counter()
    await asyncio.gather(
        *(client(port, texts, list(range(i, len(texts), n_clients)), results) for i in range(n_clients))
    )
    return results, time.perf_counter() - start


def server_cpu(port: int) -> float:
    """Return the processor time of the server so far, in seconds."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        return float(re.search(r"^process_cpu_seconds_total (\S+)", answer.read().decode(), re.MULTILINE)[1])


def measure(port: int, texts: list[str], n_clients: int, expected: np.ndarray) -> str:
    """Run a load, check the answers, and return the cells of a row of the table."""
    asyncio.run(load(port, texts[:20], min(n_clients, 20)))  # warm up
    before = server_cpu(port)
    results, seconds = asyncio.run(load(port, texts, n_clients))
    used = server_cpu(port) - before
    answered = [result for result in results if result[1] == 200]
    rejected = [result for result in results if result[1] == 503]
    wrong = sum(not np.allclose(answer["probabilities"][0], expected[row], atol=1e-4) for row, _, _, answer in answered)
    other = len(results) - len(answered) - len(rejected)
    p50, p99 = 1000 * np.percentile([seconds for _, _, seconds, _ in answered], [50, 99])
    lost = len(texts) - len(results)
    cells = (f"{len(answered) / seconds:.0f}", f"{p50:.0f}", f"{p99:.0f}", f"{1000 * used / len(answered):.1f}")
    return " | ".join(map(str, (*cells, len(rejected), wrong, lost + other)))


def main():
    options = common.arguments(__doc__)
    common.header(options)
    from sklearn_gliclass import GLiClassClassifier

    n_texts = 400 if options.quick else 2000
    texts = common.read(options, "banking77").text.tolist()[:n_texts]
    clf = GLiClassClassifier(device="cpu").fit(None, common.label_names(options, "banking77", 10))
    expected = clf.predict_proba(texts)
    names = ("server", "clients", "requests/s", "p50 ms", "p99 ms", "CPU ms", "503", "wrong", "lost")
    print(f"| {' | '.join(names)} |\n| --- |" + " ---: |" * 8)
    cases = [
        ("one request at a time", (1, 200), ("--max-batch", "1", "--max-wait", "0")),
        ("batches (default)", (1, 8, 32, 200), ()),
        ("batches, queue of 64", (400,), ("--max-queue", "64", "--max-texts", "32", "--max-labels", "32")),
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        clf.save_pretrained(folder)
        for name, clients, extra in cases:
            with server(folder, options.threads, *extra) as port:
                for n_clients in clients:
                    print(f"| {name} | {n_clients} | {measure(port, texts, n_clients, expected)} |", flush=True)


if __name__ == "__main__":
    main()
