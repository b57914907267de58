"""Items that are read ahead are the same items, in the same order, with the same errors."""

import threading
import time

import pytest
import torch

from hf_maskadapter.model.prefetching import Prefetched, prefetching_pays


def count_up(limit, seen, error=None):
    for number in range(limit):
        seen.append(number)
        yield number
    if error is not None:
        raise error


def wait_until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def no_thread():
    return all(thread.name != "prefetching" for thread in threading.enumerate())


def test_items_keep_their_order_and_can_be_read_again():
    prefetched = Prefetched(list(range(50)))
    assert len(prefetched) == 50
    assert list(prefetched) == list(prefetched) == list(range(50))


def test_the_next_items_are_read_while_the_reader_works():
    seen = []
    items = iter(Prefetched(count_up(20, seen), ahead=3))
    assert next(items) == 0
    wait_until(lambda: len(seen) == 5)  # one is out, three wait, one waits to wait
    time.sleep(0.05)
    assert len(seen) == 5


def test_an_error_comes_where_its_item_would_have_come():
    items = iter(Prefetched(count_up(2, [], OSError("broken"))))
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(OSError, match="broken"):
        next(items)


def test_the_thread_ends_when_the_reader_gives_up():
    items = iter(Prefetched(count_up(10**6, [])))
    next(items)
    items.close()
    wait_until(no_thread)


def test_lengths_are_those_of_the_items():
    with pytest.raises(TypeError, match="generator has no length"):
        len(Prefetched(count_up(1, [])))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Prefetched([], ahead=0)


def test_it_pays_where_the_model_leaves_the_cpu_idle():
    assert prefetching_pays(torch.device("cuda", 0))
    assert not prefetching_pays(torch.device("cpu"))
