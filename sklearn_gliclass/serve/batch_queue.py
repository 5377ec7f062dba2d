"""Dynamic batching: concurrent requests wait in a bounded queue and are computed together in one thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

logger = logging.getLogger("sklearn_gliclass.serve")

_LONGEST_RETRY = 60  # seconds
_SMOOTHING = 0.2  # weight of the newest batch in the mean time per text


class QueueFullError(Exception):
    """Error of a request that finds the queue full.

    Parameters
    ----------
    retry_after : int
        Seconds after which the queue has probably been computed.
    """

    def __init__(self, retry_after: int):
        super().__init__(f"The queue is full; try again in {retry_after} s.")
        self.retry_after = retry_after


class QueueClosedError(Exception):
    """Error of a request that arrives while the server shuts down."""


class NotRetriedError(Exception):
    """Error of a whole group of requests, for which it has no use to compute each request by itself."""


@dataclass(eq=False)
class Job:
    """Request in the queue.

    Attributes
    ----------
    key : hashable
        Requests with the same key are computed together.
    inputs : list
        Texts, or rows of a table.
    cost : int
        Number of sequences that the model reads.
    future : asyncio.Future
        Future of the list of results, one for each input.
    arrival : float
        Time of the event loop.
    """

    key: Hashable
    inputs: list
    cost: int
    future: asyncio.Future
    arrival: float


class BatchQueue:
    """Bounded queue of requests, which one thread computes in batches.

    While a batch is computed, further requests queue up and form the next batch. A batch that is not full waits at most
    `max_wait` seconds for more requests.

    Parameters
    ----------
    compute : callable
        ``compute(key, inputs)`` returns one result for each input. It runs in the thread of the queue.
    max_batch : int
        Number of sequences from which on a batch is full. A larger request is a batch of its own.
    max_wait : float
        Maximum number of seconds that the first request of a batch waits for others.
    max_queue : int
        Maximum number of sequences in the queue.
    observe : callable, optional
        ``observe(n_requests, n_inputs, seconds)`` is called after each batch.
    """

    def __init__(self, compute: Callable, max_batch: int, max_wait: float, max_queue: int, observe=None):
        self._compute = compute
        self.max_batch, self.max_wait, self.max_queue = max_batch, max_wait, max_queue
        self._observe = observe or (lambda *values: None)
        self._jobs: deque[Job] = deque()
        self._seconds_per_cost = 0.01
        self._running_cost = 0
        self.queued_cost = 0
        self._is_closing = False
        self._task: asyncio.Task | None = None

    # -- requests ---------------------------------------------------------------------------------

    def submit(self, key: Hashable, inputs: list, cost: int) -> asyncio.Future:
        """Put a request in the queue.

        Parameters
        ----------
        key : hashable
            Requests with the same key are computed together.
        inputs : list
            Texts, or rows of a table.
        cost : int
            Number of sequences that the model reads for this request.

        Returns
        -------
        asyncio.Future
            Future of the results. If it is cancelled before its batch begins, it is not computed.

        Raises
        ------
        QueueFullError
            If the queue has no room for the request.
        QueueClosedError
            If the server shuts down.
        """
        self.check_room(cost)
        self.start()
        loop = asyncio.get_running_loop()
        job = Job(key, inputs, cost, loop.create_future(), loop.time())
        self._jobs.append(job)
        self.queued_cost += cost
        job.future.add_done_callback(lambda future: self._forget(job) if future.cancelled() else None)
        self._arrived.set()
        return job.future

    def check_room(self, cost: int = 1) -> None:
        """Raise the errors of :meth:`submit`, without a request."""
        if self._is_closing:
            raise QueueClosedError
        if self.queued_cost + cost > self.max_queue:
            raise QueueFullError(self.retry_after)

    def _forget(self, job: Job) -> None:
        """Remove a cancelled request from the queue; it may have left it already."""
        with contextlib.suppress(ValueError):
            self._jobs.remove(job)
            self.queued_cost -= job.cost

    @property
    def retry_after(self) -> int:
        """Estimated seconds until the queue has been computed."""
        seconds = (self.queued_cost + self._running_cost) * self._seconds_per_cost
        return min(_LONGEST_RETRY, max(1, math.ceil(seconds)))

    @property
    def is_alive(self) -> bool:
        """Whether requests are accepted and computed."""
        return not self._is_closing and (self._task is None or not self._task.done())

    # -- batches ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start to compute, in the running event loop; further calls have no effect."""
        if self._task is None:
            self._arrived = asyncio.Event()
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="sklearn_gliclass.serve")
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        """Accept no more requests, and compute all that are in the queue."""
        self._is_closing = True
        if self._task is not None:
            self._arrived.set()
            await self._task
            self._executor.shutdown()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := await self._next_batch():
            start = time.perf_counter()
            self._running_cost = sum(job.cost for job in batch)
            try:
                await loop.run_in_executor(self._executor, self._run, loop, batch)
            except Exception:  # keeps the queue alive; the requests get an answer below
                logger.exception("batch failed")
            for job in batch:
                _settle(job, RuntimeError("the request was not computed"))
            seconds = time.perf_counter() - start
            mean = seconds / max(1, self._running_cost)
            self._seconds_per_cost += _SMOOTHING * (mean - self._seconds_per_cost)
            self._running_cost = 0
            self._observe(len(batch), sum(len(job.inputs) for job in batch), seconds)

    async def _next_batch(self) -> list[Job]:
        """Wait for requests, and return those of the next batch; an empty list at the end."""
        batch = []
        while not batch:  # the requests may leave while others are waited for
            while not self._jobs:
                if self._is_closing:
                    return []
                self._arrived.clear()
                await self._arrived.wait()
            await self._wait_for_more(self._jobs[0].arrival + self.max_wait)
            batch = self._take_batch()
        return batch

    def _take_batch(self) -> list[Job]:
        """Remove the jobs of the next batch from the queue."""
        batch, cost = [], 0
        while self._jobs and (not batch or cost + self._jobs[0].cost <= self.max_batch):
            job = self._jobs.popleft()
            self.queued_cost -= job.cost
            cost += job.cost
            batch.append(job)
        return batch

    async def _wait_for_more(self, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        while self.queued_cost < self.max_batch and not self._is_closing and (rest := deadline - loop.time()) > 0:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), rest)
            except asyncio.TimeoutError:  # the built-in one from Python 3.11 on
                return

    def _run(self, loop, batch: list[Job]) -> None:
        """Compute a batch, in the thread; requests with the same key are computed in one call."""
        groups: dict[Hashable, list[Job]] = {}
        for job in batch:
            groups.setdefault(job.key, []).append(job)
        for group in groups.values():
            for job, result in self._results(group):
                loop.call_soon_threadsafe(_settle, job, result)

    def _results(self, group: list[Job]) -> list[tuple[Job, object]]:
        """Return each request with its results, or with the exception that it raises."""
        inputs = [value for job in group for value in job.inputs]
        try:
            results = self._compute(group[0].key, inputs)
            if len(results) != len(inputs):
                raise RuntimeError(f"{len(results)} results for {len(inputs)} inputs")
        except StopIteration as error:  # cannot be the exception of a future
            return [(job, RuntimeError(repr(error))) for job in group]
        except NotRetriedError as error:
            return [(job, error) for job in group]
        except Exception as error:
            if len(group) == 1:
                return [(group[0], error)]
            return [pair for job in group for pair in self._results([job])]
        ends = iter(results)
        return [(job, [next(ends) for _ in job.inputs]) for job in group]


def _settle(job: Job, result) -> None:
    if job.future.done():
        return
    if isinstance(result, BaseException):
        job.future.set_exception(result)
        job.future.exception()  # read, as the request may have left
    else:
        job.future.set_result(result)
