"""The queue before the model, with plain functions in the model's place."""

import asyncio
import threading

import pytest

from hf_maskadapter.serving.batching import BatchingQueue


class Model:
    """Squares numbers when it is let; remembers the batches."""

    def __init__(self):
        self.batches, self.sizes, self.may_go_on = [], [], threading.Event()

    def compute(self, works):
        self.batches.append(list(works))
        assert self.may_go_on.wait(10)
        return [ValueError("odd") if work % 2 else work * work for work in works]

    def observe(self, size, waited, seconds):
        assert len(waited) == size
        assert seconds >= 0
        self.sizes.append(size)


def run(model, scenario, batch_size=3):
    async def whole():
        queue = BatchingQueue(model.compute, batch_size, model.observe)
        await queue.start()
        try:
            return await asyncio.wait_for(scenario(queue), 20)
        finally:
            model.may_go_on.set()
            await queue.stop()

    return asyncio.run(whole())


async def held(queue, model, work=0):
    """A work that the model has begun and does not finish."""
    task = asyncio.create_task(queue.put(work, "held"))
    while not model.batches:
        await asyncio.sleep(0.001)
    return task


def test_what_waits_goes_together_by_keys_the_oldest_first_and_no_more_than_a_batch():
    model = Model()

    async def scenario(queue):
        tasks = [await held(queue, model)]
        for work, key in [(2, "a"), (4, "b"), (6, "a"), (8, "a"), (10, "a"), (12, "b")]:
            tasks.append(asyncio.create_task(queue.put(work, key)))
        await asyncio.sleep(0)
        assert len(queue) == 6
        model.may_go_on.set()
        return await asyncio.gather(*tasks)

    assert run(model, scenario) == [0, 4, 16, 36, 64, 100, 144]
    assert model.batches == [[0], [2, 6, 8], [4, 12], [10]]
    assert model.sizes == [1, 3, 2, 1]


def test_an_exception_in_place_of_a_result_is_raised_where_it_is_waited_for():
    model = Model()
    model.may_go_on.set()

    async def scenario(queue):
        return await asyncio.gather(*(queue.put(work, "a") for work in (2, 3)), return_exceptions=True)

    even, odd = run(model, scenario)
    assert even == 4
    assert isinstance(odd, ValueError)


def test_what_nobody_waits_for_any_more_leaves_the_queue_and_is_never_computed():
    model = Model()

    async def scenario(queue):
        first = await held(queue, model)
        left, stayed = (asyncio.create_task(queue.put(work, "a")) for work in (2, 4))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        assert len(queue) == 1
        model.may_go_on.set()
        return await asyncio.gather(first, stayed)

    assert run(model, scenario) == [0, 16]
    assert model.batches == [[0], [4]]


def test_a_batch_that_fails_is_computed_one_by_one_so_that_only_the_work_at_fault_fails():
    batches = []

    def compute(works):
        batches.append(list(works))
        if 3 in works:
            raise RuntimeError("three")
        return [work * work for work in works]

    async def whole():
        queue = BatchingQueue(compute, 4, lambda *_: None)
        tasks = [asyncio.create_task(queue.put(work, "a")) for work in (2, 3, 4)]
        await asyncio.sleep(0)
        await queue.start()
        try:
            return await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await queue.stop()

    first, second, third = asyncio.run(whole())
    assert (first, third) == (4, 16)
    assert isinstance(second, RuntimeError)
    assert batches == [[2, 3, 4], [2], [3], [4]]


def test_a_stopped_queue_finishes_what_runs_and_cancels_what_waits():
    model = Model()

    async def scenario(queue):
        first = await held(queue, model)
        waiting = asyncio.create_task(queue.put(2, "a"))
        await asyncio.sleep(0)
        stopping = asyncio.create_task(queue.stop())
        await asyncio.sleep(0)
        model.may_go_on.set()
        await stopping
        with pytest.raises(asyncio.CancelledError):
            await waiting
        first.cancel()
        return model.batches

    assert run(model, scenario) == [[0]]
