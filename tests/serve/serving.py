"""Server processes and clients for the tests of the server."""

import contextlib
import http.client
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

from forked import start

from sklearn_gliclass.serve.__main__ import main


class Server:
    """Server process on 127.0.0.1, with its log."""

    def __init__(self, folder, log, *options):
        self.log, self.port = log, None
        self.process = start(main, [str(folder), "--port", "0", "--threads", "1", *options], output=log)
        for _ in range(1800):
            if match := re.search(r"running on http://127\.0\.0\.1:(\d+)", "".join(self.lines)):
                self.port = int(match[1])
                return
            assert self.process.is_alive(), self.lines
            time.sleep(0.1)
        raise AssertionError(f"the server did not start: {self.lines}")

    @property
    def lines(self) -> list[str]:
        """Lines that the server has written."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def logs(self) -> list[dict]:
        return [json.loads(line) for line in self.lines]

    def post(self, path: str, content, timeout: float = 60) -> tuple[int, dict, dict]:
        return post(self.port, path, content, timeout)

    def get(self, path: str) -> tuple[int, str]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def stop(self) -> None:
        self.process.terminate()
        self.process.join(60)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.kill()
        self.process.join(10)


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
