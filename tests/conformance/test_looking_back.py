"""A kept state of every recipe that comes with Treadle is opened beside its run, and drawn, as it was."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gauntlet_trainers import build, recipes

pytest.importorskip("msgspec", reason="the studio's packages are not installed: pip install 'treadle[studio]'")

from treadle.engine.again import made_again
from treadle.studio.drawing.asked import window_of
from treadle.studio.drawing.painting import Pace, Painting
from treadle.studio.past.looking import Looking
from treadle.studio.past.shelf import Shelf
from treadle.studio.protocol import Watch


@pytest.mark.parametrize("name", recipes())
def test_a_kept_state_is_opened_and_drawn_as_it_was(name: str, tmp_path: Path) -> None:
    trainer = build(name, run_dir=tmp_path / name)
    while trainer.progress.step < 3:
        trainer.iterate()
    trainer.save()
    then = {key: tensor.detach().clone() for key, tensor in trainer.parts.named_tensors().items()}
    while trainer.progress.step < 5:
        trainer.iterate()

    def at_once(function: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function())
        return future

    shelf = Shelf(trainer.run.path)
    looking = Looking(shelf, lambda: made_again(trainer), lambda: 0, trainer.commands.call, at_once, trainer.device)
    opening = looking.open(3)
    while not opening.done():  # calls are made between two steps
        trainer.iterate()
    assert opening.result()["step"] == 3
    digest = trainer.digest()
    source = looking.source(3)
    there = source.trainer.parts.named_tensors()
    assert there.keys() == then.keys() and all(torch.equal(there[key], then[key]) for key in then)
    for view_name, view in source.views().items():
        window = window_of(view, Watch(id=0, view=view_name, width=12, height=8))
        painting = Painting(view, window, Pace(), at_once=True)
        with source.trainer.evaluating():
            while not painting.whole:
                painting.go_on(source.step)
        assert np.isfinite(painting.picture).all(), view_name
    assert trainer.digest() == digest
    looking.let_go([3])
    trainer.close()
