from __future__ import annotations

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from treadle.cameras.keeping import Keeper
from treadle.errors import UsageError


class Maker:
    """Makes bytes, and counts how often."""

    def __init__(self, size=10, wait=0.0):
        self.size, self.wait, self.made = size, wait, 0
        self.threads = set()

    def __call__(self):
        time.sleep(self.wait)
        self.made += 1
        self.threads.add(threading.current_thread())
        return bytes(self.size)


def test_the_last_used_are_kept_within_the_bound():
    keeper, makers = Keeper(30, len), [Maker() for _ in range(4)]
    for key in (0, 1, 2, 0, 3, 0, 2, 1):
        keeper.get(key, makers[key])
        assert keeper.used <= 30
    assert [maker.made for maker in makers] == [1, 2, 1, 1]  # 3 pushed 1 out, 1 was made again


def test_what_is_larger_than_the_bound_is_handed_out_and_pushes_nothing_out():
    keeper, small, large = Keeper(30, len), Maker(10), Maker(31)
    keeper.get("small", small)
    assert len(keeper.get("large", large)) == 31 and keeper.used == 10
    keeper.get("large", large)
    keeper.get("small", small)
    assert (small.made, large.made) == (1, 2)
    nothing = Keeper(0, len)
    assert nothing.get("small", small) == bytes(10) and nothing.used == 0


def test_threads_that_want_the_same_wait_for_the_one_that_is_made():
    keeper, maker = Keeper(30, len), Maker(wait=0.05)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: keeper.get("a", maker), range(8)))
    assert maker.made == 1 and all(each is made[0] for each in made)


def test_nothing_is_made_in_the_thread_that_asks():
    maker = Maker()
    Keeper(30, len).get("a", maker)
    assert threading.current_thread() not in maker.threads


def test_an_error_reaches_who_asks_and_the_next_one_tries_again():
    keeper = Keeper(30, len)
    with pytest.raises(ValueError, match="broken"):
        keeper.get("a", lambda: (_ for _ in ()).throw(ValueError("broken")))
    assert keeper.get("a", Maker()) == bytes(10)


def test_another_process_gets_the_bound_and_not_what_is_kept():
    keeper = Keeper(30, len)
    keeper.get("a", Maker())
    sent = pickle.loads(pickle.dumps(keeper))
    assert (sent.memory, sent.used) == (30, 0) and sent.get("a", Maker(7)) == bytes(7)


def test_a_negative_bound_is_refused():
    with pytest.raises(UsageError, match="memory is -1: expected a number of bytes, 0 or more"):
        Keeper(-1, len)
