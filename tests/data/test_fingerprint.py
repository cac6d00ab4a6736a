"""Who a dataset is survives a move of its code; runs that knew it by its module's name go on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch

from treadle import Trainer
from treadle.data.convert import as_feed
from treadle.data.feed import Feed
from treadle.data.fingerprint import Fingerprint, stable_name
from treadle.errors import DataChanged
from treadle.testing import capture, restore


def make(module: str, name: str = "Squares", **attributes: Any) -> Any:
    """A dataset whose class is `name` of `module`."""
    body = {"__module__": module, "__qualname__": name, "__len__": lambda self: 8}
    body["__getitem__"] = lambda self, index: torch.tensor([float(index) ** 2])
    return type(name, (), body | attributes)()


def old_label(full_name: str) -> str:
    """What version 0.1.0 wrote down of `make(...)`; its eight probes of eight samples are told here once more."""
    import numpy as np

    inner = np.random.Generator(np.random.PCG64(8)).integers(0, 8, size=6)
    digest = Fingerprint().add(full_name).add(8)
    for index in sorted({0, 7, *inner.tolist()}):
        digest.add(torch.tensor([float(index) ** 2]))
    return digest.hexdigest()


def feed_of(data: Any) -> Feed:
    return as_feed(data, batch_size=4)


def test_a_class_may_move() -> None:
    here, there = feed_of(make("project.data")), feed_of(make("project.sets.shapes"))
    assert here.fingerprint() == there.fingerprint() == here.recorded_fingerprint()
    assert here.fingerprint() != feed_of(make("project.data", "Cubes")).fingerprint()
    assert there.accept_fingerprint(here.fingerprint()) and not there.accept_fingerprint("0" * 64)


def test_a_renamed_class_declares_what_it_was() -> None:
    renamed = feed_of(make("project", "Better", data_kind="Squares"))
    assert renamed.fingerprint() == feed_of(make("project")).fingerprint()
    assert renamed.accept_fingerprint(old_label("project.Squares"))
    moved = feed_of(make("elsewhere", "Better", data_kind="project.Squares"))
    assert moved.fingerprint() == old_label("project.Squares")


def test_runs_of_0_1_0_know_their_data_by_its_module() -> None:
    feed = feed_of(make("prog"))
    for name in ("prog.Squares", "__main__.Squares"):  # begun by import, and as a script
        assert feed.accept_fingerprint(old_label(name))
        assert feed.recorded_fingerprint() == old_label(name) != feed.fingerprint()
    assert not feed.accept_fingerprint(old_label("other.Squares"))
    assert feed.recorded_fingerprint() == old_label("__main__.Squares")  # what was refused changes nothing


@pytest.mark.parametrize("as_module", [False, True])
def test_a_script_goes_on_with_what_was_begun_by_import(monkeypatch: pytest.MonkeyPatch, as_module: bool) -> None:
    main = ModuleType("__main__")
    main.__file__ = "/somewhere/prog.py"
    if as_module:
        from importlib.machinery import ModuleSpec

        main.__spec__ = ModuleSpec("tools.prog", None)
    monkeypatch.setitem(sys.modules, "__main__", main)
    feed = feed_of(make("__main__"))
    assert feed.accept_fingerprint(old_label("tools.prog.Squares")) is as_module
    assert feed.accept_fingerprint(old_label("prog.Squares")) is not as_module


def test_our_own_datasets_keep_their_first_names() -> None:
    data = make("treadle.gans.data.translation", "PairedImages", fingerprint=lambda self: "pictures")
    assert stable_name(data) == "treadle.gans.images.PairedImages"
    known = Fingerprint().add("treadle.gans.images.PairedImages").add("pictures").hexdigest()
    assert feed_of(data).fingerprint() == known
    assert stable_name(make("project", "PairedImages")) == "PairedImages"


def test_streams_and_loaders_too() -> None:
    def numbers(epoch: int) -> Iterator[int]:
        yield from range(4)

    numbers.__qualname__ = "numbers"
    feed = feed_of(numbers)
    assert feed.accept_fingerprint(Fingerprint().add(f"{__name__}.numbers").hexdigest())
    assert feed.fingerprint() == Fingerprint().add("numbers").hexdigest()
    loader = feed_of(torch.utils.data.DataLoader(make("prog"), batch_size=4))
    assert (
        loader.accept_fingerprint(old_label("__main__.Squares"))
        and loader.fingerprint() == feed_of(make("x")).fingerprint()
    )


class Mean(Trainer):
    """Follows the mean of its data."""

    def setup(self) -> None:
        self.mean = torch.nn.Parameter(torch.zeros(1))
        self.optimizer = torch.optim.SGD([self.mean], lr=0.1)

    def step(self, batch: Any) -> Any:
        loss = (batch - self.mean).square().mean()
        self.minimize(loss)
        return {"loss": loss}


def test_a_run_keeps_the_label_that_it_was_begun_with() -> None:
    begun = Mean(data=make("prog"), batch_size=4, max_epochs=2)
    begun.iterate()
    state = capture(begun)
    state.values["data"]["feed"] = old_label("__main__.Squares")
    gone_on = Mean(data=make("prog"), batch_size=4, max_epochs=2)
    restore(gone_on, state)
    assert capture(gone_on).digest == state.digest
    with pytest.raises(DataChanged, match="'feed' is not what it was"):
        restore(Mean(data=make("prog", "Cubes"), batch_size=4, max_epochs=2), state)
