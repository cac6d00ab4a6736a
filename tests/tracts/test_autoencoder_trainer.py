"""The autoencoder of whole lines: what it sees, learns, shows and refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_tracts import arcs, data

from treadle.errors import UsageError
from treadle.recipes.registry import load_recipe
from treadle.tracts.autoencoder_trainer import Box, LineAutoencoderTrainer
from treadle.tracts.resampling import resample_count
from treadle.tracts.space import Space
from treadle.tracts.subject import MemorySubject, TractData

SMALL = {"device": "cpu", "points": 64, "latent": 8, "channels": 2, "batch_size": 16, "learning_rate": 3e-3}


def trainer_of(given: TractData | None = None, **settings: Any) -> LineAutoencoderTrainer:
    return LineAutoencoderTrainer(data=given or data(), **SMALL | {"max_epochs": 2} | settings)


def test_lines_are_seen_in_millimetres_from_the_middle_of_the_volume() -> None:
    uneven = Space(np.diag([2.0, 1.0, 3.0, 1.0]), (12, 12, 5))  # 24 x 12 x 15 mm: 12 is half of the longest side
    lines = arcs(5)
    trainer = trainer_of(TractData((MemorySubject("a", uneven, {}, {"f": lines}),)))
    batch = trainer.feed.gather(0, np.arange(5))  # type: ignore[union-attr]
    found = trainer.lines_of(batch)
    expected = resample_count(lines, 64, uneven.voxel_sizes).points.reshape(5, 64, 3)
    assert found.shape == (5, 64, 3) and trainer.elements(batch) == 5
    assert np.allclose(found, (expected * [2, 1, 3] - [12, 6, 7.5]) / 12, atol=1e-5)
    assert float(trainer.lines_of(batch).abs().max()) <= 1


def test_subjects_of_unlike_grids_are_refused() -> None:
    cube = Space(np.diag([2.0, 2.0, 2.0, 1.0]), (12, 12, 12))
    finer = Space(np.diag([1.0, 1.0, 1.0, 1.0]), (12, 12, 12))
    subjects = [MemorySubject(name, space, {}, {"f": arcs(5)}) for name, space in (("a", cube), ("b", finer))]
    with pytest.raises(UsageError, match="b has a grid of another size than a: prepare all alike"):
        trainer_of(TractData(tuple(subjects)))
    with pytest.raises(UsageError, match="b has a grid of another size"):
        trainer_of(TractData((subjects[0],), (subjects[1],)))


def test_what_is_seen_goes_back_to_where_it_was() -> None:
    uneven = Space(np.diag([2.0, 1.0, 3.0, 1.0]), (12, 12, 5))
    box = Box.of([MemorySubject("a", uneven, {}, {"f": arcs(5)})], "f")
    points = torch.rand(20, 3) * 12
    assert box.unit == 12 and torch.allclose(box.leave(box.enter(points)), points, atol=1e-5)


def test_it_learns_to_bring_lines_back() -> None:
    trainer = trainer_of(max_epochs=40, batch_size=8, channels=8, learning_rate=1e-3)
    before = trainer.validate()
    trainer.train()
    after = trainer.validation_metrics
    assert after["loss"] < before["loss"] / 4
    # Millimetres: sqrt of the summed squares of three coordinates, in units of 12 mm.
    assert after["distance"] == pytest.approx(12 * (3 * after["loss"]) ** 0.5, rel=0.5)


def test_its_report_shows_held_out_lines_and_its_best_model_loads(tmp_path: Path) -> None:
    with trainer_of(run_dir=tmp_path / "run") as trainer:
        trainer.train()
        found = trainer.report(tmp_path)
    assert found["loss"] == trainer.validation_metrics["loss"]
    picture = np.asarray(Image.open(found["picture"]))
    half = len(picture) // 2
    assert picture.shape[0] % 2 == 0 and not np.array_equal(picture[:half], picture[half:])
    model = LineAutoencoderTrainer.load_model(tmp_path / "run" / "v001")
    assert not model.training
    lines = torch.randn(3, 64, 3)
    with torch.no_grad():
        assert torch.equal(model(lines), trainer.model(lines)) and model.encode(lines).shape == (3, 8)
    with pytest.raises(UsageError, match="nowhere"):
        LineAutoencoderTrainer.load_model(tmp_path / "nowhere")


def test_without_held_out_lines_there_is_nothing_to_show(tmp_path: Path) -> None:
    trainer = trainer_of(TractData(data().training))
    trainer.train()
    assert trainer.report(tmp_path) == {} and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"split": 0.5}, "split is 0.5: expected 0, an autoencoder sees whole lines"),
        ({"step_size": 1.0}, "step_size is 1.0: expected null, lines have points=64 here"),
        ({"compress": 0.1}, "compress is 0.1: expected null, lines have points=64 here"),
        ({"volume": "input"}, "volume is 'input': expected null, it sees lines alone"),
        ({"rotate": True}, "rotate is True: expected false, it sees lines alone"),
        ({"pull": 0.5}, "pull is 0.5: expected 0.0, it sees lines alone"),
        ({"nb_points": 32}, "nb_points is 32: expected null, or 64 as points"),
        ({"points": 70}, "points is 70: expected a multiple of 32"),
        ({"drop_last": True}, "drop_last is True: expected false, every line comes in every epoch (see max_batches)"),
        ({"lines": "fibre"}, "one has no lines 'fibre'; did you mean 'fibres'?"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        trainer_of(**settings)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_recipe_s_number_of_points_can_be_overridden() -> None:
    recipe = load_recipe("tracts-autoencoder").with_overrides(["points=64"])
    assert (recipe.config.points, recipe.config.nb_points) == (64, None)
    feed = trainer_of().feed
    assert feed is not None
    assert torch.diff(next(feed.iterate(0)).offsets).unique().tolist() == [64]


def test_nobody_to_train_on_is_told() -> None:
    with pytest.raises(UsageError, match="the data has no subject to train on"):
        trainer_of(TractData(()))


def test_the_order_of_lines_is_drawn_unless_shuffle_is_off() -> None:
    for shuffle in (True, False):
        feed = trainer_of(shuffle=shuffle).feed
        assert feed is not None
        first, second = ([batch.lines.tolist() for batch in feed.iterate(epoch)] for epoch in (0, 1))
        assert (first == second) is not shuffle
