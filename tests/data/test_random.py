"""A trainer's random streams: apart from the program's and one another's, saved and continued exactly."""

from __future__ import annotations

import json
import pickle
import random
import signal
import sys
import threading
import time

import numpy as np
import pytest
import torch

from treadle.checkpoint.packing import Packer, unpack
from treadle.data.random import RandomStreams, program_streams


@pytest.fixture(autouse=True)
def untouched_generators() -> None:
    """In place of the folder's: these tests draw from the global generators themselves."""


def draw(count=1):
    """Numbers from each global generator; an odd count leaves NumPy and Python with a Gaussian in hand."""
    return [
        value
        for _ in range(count)
        for value in (random.random(), random.gauss(0, 1), np.random.randn(), np.random.rand(), float(torch.randn(())))
    ]


@pytest.fixture(autouse=True)
def seeded():
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)


def through_json(state):
    packer = Packer()
    return unpack(json.loads(json.dumps(packer.pack(state, "random"), allow_nan=False)), packer.tensors)


@pytest.mark.parametrize("before", [0, 1, 2])
def test_the_program_s_own_streams_go_on_as_if_no_trainer_had_drawn(before):
    alone = draw(before + 4)
    random.seed(7), np.random.seed(7), torch.manual_seed(7)
    mixed = draw(before)
    for _ in range(2):
        with RandomStreams(0):
            draw(3)
        mixed += draw(2)
    assert mixed == alone


def test_two_trainers_in_turns_draw_what_each_draws_alone():
    with RandomStreams(1):
        first = draw(6)
    with RandomStreams(2):
        second = draw(6)
    assert first != second
    one, two = RandomStreams(1), RandomStreams(2)
    turns = {1: [], 2: []}
    for count in (1, 3, 2):
        with one:
            turns[1] += draw(count)
        with two:
            turns[2] += draw(count)
    assert turns == {1: first, 2: second}


@pytest.mark.parametrize("saved_inside", [True, False])
@pytest.mark.parametrize("loaded_inside", [True, False])
@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_saved_stream_goes_on(saved_inside, loaded_inside, before):
    with RandomStreams(3):
        whole = draw(before + 5)
    first = RandomStreams(3)
    with first:
        begun = draw(before)
        state = first.state_dict()
    if not saved_inside:
        state = first.state_dict()
    state = through_json(state)
    second = RandomStreams(4)
    if loaded_inside:
        with second:
            draw(2)
            second.load_state_dict(state)
            rest = draw(5)
    else:
        second.load_state_dict(state)
        with second:
            rest = draw(5)
    assert begun + rest == whole


def test_a_state_is_not_changed_by_what_is_drawn_later():
    streams = RandomStreams(5)
    with streams:
        draw(3)
        state = streams.state_dict()
        expected = draw(2)
        streams.load_state_dict(state)
        assert draw(2) == expected
        streams.load_state_dict(state)
        assert draw(2) == expected


def test_nested_use_exchanges_once():
    streams = RandomStreams(6)
    with streams:
        whole = draw(2)
    again = RandomStreams(6)
    with again:
        first = draw()
        with again:
            second = draw()
    assert first + second == whole


def test_the_streams_come_back_after_an_error():
    expected = draw(2)[5:]
    random.seed(7), np.random.seed(7), torch.manual_seed(7)
    draw()
    with pytest.raises(ValueError, match="oops"), RandomStreams(0):
        draw()
        raise ValueError("oops")
    assert draw() == expected


def test_numpy_s_global_generator_still_does_what_programs_do_with_it():
    with RandomStreams(0):
        draw()
    np.random.seed(11)
    expected = np.random.RandomState(11).randn(3).tolist()
    state = np.random.get_state()
    assert state[0] == "MT19937" and len(state[1]) == 624
    assert np.random.randn(3).tolist() == expected
    np.random.set_state(state)
    assert np.random.randn(3).tolist() == expected
    copy = pickle.loads(pickle.dumps(np.random.mtrand._rand))
    assert copy.randn() == np.random.randn()


def test_a_program_with_another_kind_of_generator_keeps_it():
    numpy_random = np.random
    ours = numpy_random.get_bit_generator()
    try:
        other = np.random.PCG64(1)
        numpy_random.set_bit_generator(other)
        expected = np.random.randn(5).tolist()
        other.state = np.random.PCG64(1).state
        numpy_random.set_bit_generator(other)
        first = [np.random.randn()]
        with RandomStreams(0):
            draw()
        assert numpy_random.get_bit_generator() is other
        assert first + np.random.randn(4).tolist() == expected
    finally:
        numpy_random.set_bit_generator(ours)


def test_threads_have_their_turns_in_the_order_they_asked():
    had: list[int] = []

    def ask(number: int) -> None:
        with program_streams(), program_streams():
            had.append(number)

    def has_asked(thread: threading.Thread) -> bool:
        frame = sys._current_frames().get(thread.ident or 0)
        return frame is not None and frame.f_code.co_name == "take" and "mine" in frame.f_locals

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
    with program_streams():
        for thread in threads:
            thread.start()
            while not has_asked(thread):  # each asks before the next
                time.sleep(0.001)
        assert not had
    for thread in threads:
        thread.join(timeout=60)
    assert had == [0, 1, 2, 3, 4]


def test_an_interrupt_while_waiting_for_the_turn_leaves_it_to_others():
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with program_streams():
            entered.set()
            leave.wait(60)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    holder = threading.Thread(target=hold)
    holder.start()
    assert entered.wait(60)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt), program_streams():
            raise AssertionError("another thread has the turn")
    finally:
        signal.signal(signal.SIGALRM, before)
        leave.set()
        holder.join(timeout=60)
    had = threading.Event()

    def take() -> None:
        with program_streams():
            had.set()

    threading.Thread(target=take, daemon=True).start()
    assert had.wait(60), "nobody has the turn, and it is not to be had"
