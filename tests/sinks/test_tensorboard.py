"""TensorBoard events, read back."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from treadle.errors import UsageError
from treadle.runs.metrics import series
from treadle.sinks.tensorboard import TensorBoard


def read(directory: Path) -> Any:
    accumulator = EventAccumulator(str(directory), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def test_everything_can_be_read_back(line: Callable[..., Any], tmp_path: Path) -> None:
    trainer = line(run_dir=tmp_path / "line", hooks=[TensorBoard()])
    trainer.iterate()
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    trainer.log_image("probe", picture)
    trainer.log_image("grey", torch.full((2, 2), 0.5))
    trainer.log_text("note", "hello *there*")
    trainer.train()
    events = read(trainer.run.path / "tensorboard")
    assert {"train/loss", "train/psnr", "train/lr", "epoch/loss", "validation/loss"} <= set(events.Tags()["scalars"])
    for split in ("train", "validation"):
        steps, values = series(trainer.run.path, "loss", split)
        written = events.Scalars(f"{split}/loss")
        assert [event.step for event in written] == steps.tolist()
        np.testing.assert_allclose([event.value for event in written], values, rtol=1e-6)
    (image,) = events.Images("probe")
    assert image.step == 1
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(image.encoded_image_string))), picture)
    grey = np.asarray(Image.open(io.BytesIO(events.Images("grey")[0].encoded_image_string)))
    assert (grey == 128).all()
    (text,) = events.Tensors("note/text_summary")
    assert text.tensor_proto.string_val[0] == b"hello *there*"


def test_steps_that_are_taken_again_replace_the_old_events(line: Callable[..., Any], tmp_path: Path) -> None:
    first = line(run_dir=tmp_path / "line", hooks=[TensorBoard()], save_every="3 steps")
    for _ in range(8):
        first.iterate()
    first.close()
    resumed = line(run_dir=first.run.path, resume=True, hooks=[TensorBoard()], save_every="3 steps")
    resumed.train()
    events = read(first.run.path / "tensorboard")
    assert [event.step for event in events.Scalars("train/loss")] == [2, 4, 6, 8, 10, 12]


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else real(name))
    with pytest.raises(UsageError, match=r"pip install 'treadle\[tensorboard\]'"):
        TensorBoard()


def test_without_a_place_to_write_it_is_reported(line: Callable[..., Any], capfd: pytest.CaptureFixture[str]) -> None:
    assert line(hooks=[TensorBoard()]).train().status == "finished"
    assert "TensorBoard has nowhere to write" in capfd.readouterr().err
