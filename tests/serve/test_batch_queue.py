"""The queue: batches, order, bounds, errors and the end."""

import asyncio
import threading
import time

import pytest

from sklearn_gliclass.serve.batch_queue import BatchQueue, NotRetriedError, QueueClosedError, QueueFullError


class Model:
    """Function that doubles its inputs and records its calls; it waits while `gate` is closed."""

    def __init__(self):
        self.calls, self.threads, self.gate = [], set(), threading.Event()
        self.gate.set()

    def __call__(self, key, inputs):
        self.calls.append((key, list(inputs)))
        self.threads.add(threading.get_ident())
        assert self.gate.wait(10)
        if "not retried" in inputs:
            raise NotRetriedError("all")
        if "bad" in inputs:
            raise ValueError("bad input")
        return [2 * value for value in inputs]


def run(scenario, model=None, max_batch=4, max_wait=0.0, max_queue=10):
    """Run ``scenario(queue, model)``, and return the queue."""
    model = model or Model()

    async def main():
        queue = BatchQueue(model, max_batch, max_wait, max_queue)
        try:
            await asyncio.wait_for(scenario(queue, model), 20)
        finally:
            model.gate.set()
            await queue.close()
        return queue

    return asyncio.run(main())


def test_requests_that_wait_are_computed_together():
    async def scenario(queue, model):
        model.gate.clear()
        first = queue.submit("k", [1], 1)
        await asyncio.sleep(0.05)
        others = [queue.submit("k", [value], 1) for value in (2, 3, 4, 5, 6)]
        model.gate.set()
        assert await asyncio.gather(first, *others) == [[2], [4], [6], [8], [10], [12]]
        assert model.calls == [("k", [1]), ("k", [2, 3, 4, 5]), ("k", [6])]
        assert len(model.threads) == 1

    run(scenario)


def test_keys_are_computed_separately():
    async def scenario(queue, model):
        futures = [queue.submit(key, [value], 1) for key, value in (("a", 1), ("b", 2), ("a", 3))]
        assert await asyncio.gather(*futures) == [[2], [4], [6]]
        assert model.calls == [("a", [1, 3]), ("b", [2])]

    run(scenario)


def test_batch_waits_for_others_no_longer_than_its_limit():
    async def scenario(queue, model):
        start = time.perf_counter()
        first = queue.submit("k", [1], 1)
        await asyncio.sleep(0.02)
        second = queue.submit("k", [2], 1)
        await asyncio.gather(first, second)
        assert 0.09 < time.perf_counter() - start < 2
        assert model.calls == [("k", [1, 2])]

    run(scenario, max_wait=0.1)


def test_full_batch_does_not_wait():
    async def scenario(queue, model):
        start = time.perf_counter()
        await asyncio.gather(queue.submit("k", [1, 2], 2), queue.submit("k", [3, 4], 2))
        assert time.perf_counter() - start < 5

    run(scenario, max_wait=10.0)


def test_large_request_is_a_batch_of_its_own():
    async def scenario(queue, model):
        assert await queue.submit("k", list(range(9)), 9) == list(range(0, 18, 2))

    run(scenario)


def test_full_queue_raises_with_a_time():
    async def scenario(queue, model):
        model.gate.clear()
        running = queue.submit("k", [0], 1)
        await asyncio.sleep(0.05)
        waiting = queue.submit("k", list(range(8)), 8)
        with pytest.raises(QueueFullError) as caught:
            queue.submit("k", [1, 2, 3], 3)
        assert 1 <= caught.value.retry_after <= 60
        last = queue.submit("k", [1, 2], 2)
        model.gate.set()
        await asyncio.gather(running, waiting, last)
        assert queue.queued_cost == 0

    run(scenario)


def test_failing_request_does_not_harm_others():
    async def scenario(queue, model):
        futures = [queue.submit("k", [value], 1) for value in (1, "bad", 3)]
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert (results[0], results[2]) == ([2], [6])
        assert isinstance(results[1], ValueError)
        assert await queue.submit("k", [4], 1) == [8]

    run(scenario)


def test_errors_of_the_group_are_not_retried():
    async def scenario(queue, model):
        futures = [queue.submit("k", [value], 1) for value in (1, "not retried")]
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert all(isinstance(result, NotRetriedError) for result in results)
        assert len(model.calls) == 1

    run(scenario)


def test_cancelled_requests_are_not_computed():
    async def scenario(queue, model):
        model.gate.clear()
        first = queue.submit("k", [1], 1)
        await asyncio.sleep(0.05)
        queue.submit("k", [2], 1).cancel()
        third = queue.submit("k", [3], 1)
        await asyncio.sleep(0)
        assert queue.queued_cost == 1
        model.gate.set()
        await asyncio.gather(first, third)
        assert model.calls == [("k", [1]), ("k", [3])]

    run(scenario)


def test_abandoned_requests_leave_no_calls_behind(monkeypatch):
    """A thousand nested calls would end the queue."""
    calls, next_batch = [], BatchQueue._next_batch

    async def counted(self):
        calls.append(self)
        return await next_batch(self)

    async def scenario(queue, model):
        for _ in range(5):
            request = queue.submit("k", [1], 1)
            await asyncio.sleep(0.005)  # the queue waits for others
            request.cancel()
            await asyncio.sleep(0.03)
        assert await queue.submit("k", [2], 1) == [4]
        assert len(calls) <= 2
        assert model.calls == [("k", [2])]

    monkeypatch.setattr(BatchQueue, "_next_batch", counted)
    run(scenario, max_wait=0.02)


def test_close_computes_what_is_queued():
    async def scenario(queue, model):
        model.gate.clear()
        futures = [queue.submit("k", [value], 1) for value in range(8)]
        await asyncio.sleep(0.02)
        closing = asyncio.create_task(queue.close())
        await asyncio.sleep(0.02)
        with pytest.raises(QueueClosedError):
            queue.submit("k", [9], 1)
        model.gate.set()
        await closing
        assert await asyncio.gather(*futures) == [[2 * value] for value in range(8)]
        assert not queue.is_alive

    run(scenario)


@pytest.mark.parametrize("compute", [lambda key, inputs: [], lambda key, inputs: next(iter([])), lambda key: [1]])
def test_queue_survives_faults_of_the_function(compute):
    async def main():
        queue = BatchQueue(compute, 4, 0.0, 10)
        for _ in range(2):
            with pytest.raises((RuntimeError, TypeError)):
                await asyncio.wait_for(queue.submit("k", [1], 1), 10)
        assert queue.is_alive
        await queue.close()

    asyncio.run(main())
