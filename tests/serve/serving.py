"""Server processes and clients for the tests of the server."""

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


class Server:
    """Server process on 127.0.0.1, with its log."""

    def __init__(self, folder, *options):
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
        command = [
            sys.executable,
            "-m",
            "sklearn_gliclass.serve",
            str(folder),
            "--port",
            "0",
            "--threads",
            "1",
            *options,
        ]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.lines, self.port, self._ready = [], None, threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        assert self._ready.wait(180), "the server did not start"
        assert self.port, "\n".join(self.lines)

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line)
            if match := re.search(r"running on http://127\.0\.0\.1:(\d+)", line):
                self.port = int(match[1])
                self._ready.set()
        self._ready.set()

    def logs(self) -> list[dict]:
        return [json.loads(line) for line in self.lines]

    def post(self, path: str, content, timeout: float = 60) -> tuple[int, dict, dict]:
        return post(self.port, path, content, timeout)

    def get(self, path: str) -> tuple[int, str]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def stop(self) -> int:
        self.process.terminate()
        status = self.process.wait(60)
        self._thread.join(10)
        return status

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self._thread.join(10)
        self.process.stderr.close()


def post(port: int, path: str, content, timeout: float = 60) -> tuple[int, dict, dict]:
    """Send JSON, and return status, headers and JSON of the answer."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)) as connection:
        connection.request("POST", path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), json.loads(response.read())


def concurrently(function, arguments, n_clients: int) -> list:
    """Call a function with each argument, in as many threads as clients."""
    with ThreadPoolExecutor(n_clients) as pool:
        return list(pool.map(function, arguments))
