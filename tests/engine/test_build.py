"""Putting a trainer together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from treadle import DatasetFeed, TensorFeed, UsageError
from treadle.data.sampler import FixedBatches
from treadle.data.steps import Steps
from treadle.testing import Line, kill, line_data


@pytest.mark.parametrize("name", ["metrics", "batch", "best", "random", "loop", "status", "hooks"])
def test_setup_cannot_take_a_name_of_the_engine(name: str) -> None:
    """Such a module would be neither moved to the device nor saved, without a word."""

    class Taking(Line):
        def setup(self) -> None:
            super().setup()
            setattr(self, name, torch.nn.Linear(1, 1))

    with pytest.raises(UsageError, match=f"sets self.{name}, which the trainer itself needs"):
        Taking(max_steps=1)


def test_setup_may_make_the_feed() -> None:
    class Feeding(Line):
        def setup(self) -> None:
            super().setup()
            self.feed = TensorFeed(line_data(8), 4)

    assert Feeding(max_epochs=1).train().step == 2


def test_a_misspelt_keyword_of_a_replacement_is_named() -> None:
    trainer = Line(data=line_data(8), max_epochs=1)
    with pytest.raises(UsageError, match=r"the replacement for 'step' takes no 'rat'; did you mean 'rate'\?"):
        trainer.replace("step", lambda trainer, batch, *, rate=1.0: None, rat=2.0)
    with pytest.raises(UsageError, match=r"the replacement for 'pre_epoch' takes no 'trainer'"):
        trainer.replace("pre_epoch", lambda trainer: None, trainer=2.0)
    trainer.replace("step", lambda trainer, batch, **anything: {}, rat=2.0)
    assert trainer.train().step == 1


# Settings that would not be heeded ---------------------------------------------------------------------------------


def test_patience_without_validation_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="patience is 3, but nothing is validated: give validation_data, or no patience"
    ):
        Line(data=line_data(8), max_epochs=2, patience=3, run_dir=tmp_path / "line")
    assert not (tmp_path / "line").exists()
    assert Line(data=line_data(8), validation_data=line_data(8), max_epochs=2, patience=3).train().epoch == 2

    class Own(Line):
        def setup(self) -> None:
            super().setup()
            self.validation_feed = TensorFeed(line_data(8), 4, shuffle=False)

    Own(data=line_data(8), max_epochs=1, patience=3)


def loader(batch_size: int) -> Any:
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*line_data(12)), batch_size=batch_size)


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        (lambda: TensorFeed(line_data(12), 4), {"batch_size": 6}, r"batch_size=6 beside data that is a TensorFeed.*=4"),
        (lambda: loader(4), {"batch_size": 6}, r"batch_size=6 beside data that is a DataLoader.*\(batch_size=4\)"),
        (
            lambda: DatasetFeed(list(zip(*line_data(12), strict=True)), batching=FixedBatches(12, 4)),
            {"batch_size": 6},
            r"batch_size=6 beside .* DatasetFeed.*\(batch_size=4\)",
        ),
        (lambda: TensorFeed(line_data(12), 4), {"shuffle": False}, r"shuffle=False beside .*\(shuffle=True\)"),
        (lambda: TensorFeed(line_data(12), 5), {"drop_last": True}, r"drop_last=True beside .*\(drop_last=False\)"),
        (lambda: Steps(3), {"batch_size": 6}, r"batch_size=6 beside data that is a Steps, which makes its batches it"),
    ],
)
def test_settings_that_the_data_makes_void_are_refused(data: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Line(data=data(), max_epochs=1, **settings)


@pytest.mark.parametrize("data", [lambda: TensorFeed(line_data(12), 4), lambda: loader(4)])
def test_the_batch_size_that_is_recorded_is_the_datas(data: Any, tmp_path: Path) -> None:
    trainer = Line(data=data(), max_epochs=2, run_dir=tmp_path / "line", save_every="1 step")
    assert trainer.config.batch_size == 4
    trainer.iterate()
    kill(trainer)
    assert "batch_size: 4" in (trainer.run.path / "config.yaml").read_text()
    assert Line(data=data(), batch_size=4, max_epochs=2, run_dir=trainer.run.path, resume=True).train().step == 6


def test_other_batches_are_another_run(tmp_path: Path) -> None:
    """Before: a run resumed with other batches than it had, without a word: the record said 32 both times."""
    where = {"run_dir": tmp_path / "v001", "max_epochs": 2, "save_every": "1 step"}
    trainer = Line(data=TensorFeed(line_data(12), 4), **where)
    trainer.iterate()
    kill(trainer)
    with pytest.raises(UsageError, match=r"a resume cannot change batch_size \(4 -> 6\)"):
        Line(data=TensorFeed(line_data(12), 6), **where, resume=True)


def test_a_run_that_recorded_the_default_beside_a_feed_resumes(tmp_path: Path) -> None:
    where = {"run_dir": tmp_path / "v001", "max_epochs": 2, "save_every": "1 step"}
    trainer = Line(data=TensorFeed(line_data(12), 4), **where)
    trainer.iterate()
    kill(trainer)
    for name in ("config.yaml", "journal.jsonl"):
        path = tmp_path / "v001" / name
        for form in ("batch_size: {}", '"batch_size": {}', '"batch_size":{}'):
            path.write_text(path.read_text().replace(form.format(4), form.format(32)))
    resumed = Line(data=TensorFeed(line_data(12), 4), **where, resume=True)
    assert resumed.progress.step == 1 and resumed.train().step == 6


def one_after_another() -> Iterator[Any]:
    yield from zip(*line_data(40), strict=True)


def test_an_iterator_that_can_be_read_once_is_refused_where_it_is_not_enough() -> None:
    settings = {"batch_size": 4, "validate_every": None}
    with pytest.raises(
        UsageError, match="data is a generator, which lasts one of 2 epochs: give an iterable that starts"
    ):
        Line(data=one_after_another(), max_epochs=2, **settings)
    with pytest.raises(UsageError, match="data is a generator, which a rollback cannot read again"):
        Line(data=one_after_another(), max_epochs=1, on_bad_step="rollback", **settings)
    assert Line(data=one_after_another(), max_epochs=1, **settings).train().step == 10


def test_a_generator_makes_a_run_on_disk_that_resumes(tmp_path: Path) -> None:
    """Before: AttributeError: 'generator' object has no attribute '__module__'."""
    settings = {"batch_size": 4, "max_epochs": 1}
    whole = Line(data=one_after_another(), **settings)
    whole.train()
    killed = Line(data=one_after_another(), **settings, run_dir=tmp_path / "v001", save_every="1 step")
    for _ in range(4):
        killed.iterate()
    kill(killed)
    resumed = Line(data=one_after_another(), **settings, run_dir=tmp_path / "v001", resume=True, save_every="1 step")
    assert resumed.progress.step == 4
    resumed.train()
    assert resumed.digest() == whole.digest()
