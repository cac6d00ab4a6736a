"""Live views of translations: what is shown of a sample, exact numbers, errors, the worst, and no trace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from treadle.gans.colorization import ColorizationTrainer
from treadle.gans.cyclegan import CycleGANConfig, CycleGANTrainer
from treadle.gans.images import PairedImages
from treadle.gans.live import ERROR_GAIN
from treadle.gans.pix2pix import Pix2PixConfig, Pix2PixTrainer
from treadle.gans.sources import ArrayPairs
from treadle.images.lab import rgb_to_lab
from treadle.images.metrics import measure
from treadle.images.pixels import to_pixels, to_tensor
from treadle.reports.trainer_views import views_of
from treadle.reports.views import LiveView, Window, chosen

PAIRS = {"device": "cpu", "precision": "fp32", "size": 16, "features": 4, "downs": 2, "d_features": 4, "patch": 16,
         "max_steps": 3, "examples_every": None, "log_every": "1 step"}  # fmt: skip
CYCLES = {name: value for name, value in PAIRS.items() if name != "downs"} | {"blocks": 1}


def pictures(count: int = 3, seed: int = 0, channels: tuple[int, int] = (3, 3)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.rand(count, planes, 16, 16, generator=generator) * 2 - 1 for planes in channels)
    return first, second


def pix2pix(**settings: Any) -> Pix2PixTrainer:
    return Pix2PixTrainer(data=pictures(), validation_data=pictures(5, 1), **PAIRS | settings)


def window(view: LiveView, width: int = 4 * 38, height: int = 58, **given: Any) -> Window:
    return Window(width, height, (0, 0, width, height), None, chosen(view.options(), given))


def cells(trainer: Any, view: LiveView, **given: Any) -> dict[str, np.ndarray]:
    with trainer.evaluating():
        return {cell.name: cell.picture for cell in view.cells(window(view, **given))}


def test_a_held_out_sample_stands_beside_what_is_made_of_it() -> None:
    trainer = pix2pix()
    view = views_of(trainer)["translations"]
    assert view.options()[0].choices == ("0000", "0001", "0002", "0003", "0004")
    x, y = (part[3:4] for part in pictures(5, 1))
    with trainer.evaluating():
        output = trainer.translate(x, trainer.generator)
        figures = view.figures(window(view, sample="0003"))
    shown = cells(trainer, view, sample="0003")
    assert list(shown) == ["input", "output", "target", f"|error| x {ERROR_GAIN}"]
    for name, tensor in (("input", x), ("output", output), ("target", y)):
        np.testing.assert_array_equal(shown[name], to_pixels(tensor[0]))
    error = np.abs(shown["output"].astype(float) - shown["target"]).mean(2) / 255 * ERROR_GAIN
    np.testing.assert_allclose(shown[f"|error| x {ERROR_GAIN}"], error.clip(0, 1), atol=1e-6)
    assert figures == {name: values[0] for name, values in measure(output, y).items()}


@pytest.mark.parametrize(("monitor", "worst"), [("l1", "highest"), ("psnr", "lowest"), ("texture", "highest")])
def test_samples_are_told_by_the_monitored_figure_first(monitor: str, worst: str) -> None:
    trainer = pix2pix(monitor=monitor)
    view = views_of(trainer)["translations"]
    assert view.worst == worst
    with trainer.evaluating():
        samples = list(view.samples())
        assert view.figures(window(view, sample="0002")) == samples[2].figures
    first = monitor if monitor in ("l1", "psnr") else "l1"
    assert [next(iter(sample.figures)) for sample in samples] == [first] * 5
    assert np.mean([sample.figures["l1"] for sample in samples]) == pytest.approx(trainer.validate()["l1"])


def test_the_numbers_of_all_pictures_at_a_pixel_are_told_together() -> None:
    trainer = pix2pix()
    view = views_of(trainer)["translations"]
    asked = window(view, sample="0001")
    with trainer.evaluating():
        left, top, width, height = view.sheet(asked).place(1)
        found = view.inspect(asked, left + width * 5 // 16, top + height * 9 // 16)
    shown = cells(trainer, view, sample="0001")
    column, row = found["column"], found["row"]
    assert found["picture"] == "output"
    for name in ("input", "output", "target"):
        assert [found[f"{name}: {color}"] for color in ("red", "green", "blue")] == shown[name][row, column].tolist()
    error = shown["output"][row, column].astype(float) - shown["target"][row, column]
    assert [found[f"|error| x {ERROR_GAIN}: {color}"] for color in ("red", "green", "blue")] == error.tolist()


def test_a_picture_follows_the_weights_and_tiles_are_parts_of_it() -> None:
    trainer = pix2pix()
    view = views_of(trainer)["translations"]
    asked = window(view, 300, 200)
    with trainer.evaluating():
        assert view.prepare(asked)
        before = view.draw(asked)
        tiles = np.zeros_like(before)
        for left, top, right, bottom in ((0, 0, 300, 70), (0, 70, 111, 200), (111, 70, 300, 200)):
            part = Window(300, 200, (left, top, right, bottom), None, asked.options)
            tiles[top:bottom, left:right] = view.draw(part)
    np.testing.assert_array_equal(tiles, before)
    trainer.iterate()
    with trainer.evaluating():
        assert (view.draw(asked) != before).any()


def test_deep_pictures_of_several_channels_tell_the_numbers_of_their_files() -> None:
    settings = {"in_channels": 5, "in_dtype": "uint16", "in_range": (0, 4095), "out_channels": 2,
                "out_dtype": "float32", "out_range": (-1.0, 3.0)}  # fmt: skip
    given = pictures(3, 2, (5, 2))
    trainer = Pix2PixTrainer(data=given, validation_data=given, **PAIRS | settings)
    view = views_of(trainer)["translations"]
    asked = window(view, sample="0002")
    with trainer.evaluating():
        left, top, *_ = view.sheet(asked).place(0)
        found = view.inspect(asked, left, top)
        output = trainer.translate(given[0][2:], trainer.generator)
    x, y = given[0][2, :, 0, 0], given[1][2, :, 0, 0]
    assert [found[f"input: channel {number}"] for number in range(1, 6)] == ((x + 1) / 2 * 4095).round().int().tolist()
    assert found["target: channel 1"] == pytest.approx(float(y[0] * 2 + 1), abs=1e-6)
    error = float(output[0, 1, 0, 0] - y[1]) * 2
    assert found[f"|error| x {ERROR_GAIN}: channel 2"] == pytest.approx(error, abs=1e-6)
    assert not view.lossless


def label_maps(root: Path) -> Path:
    for split, count in (("train", 3), ("val", 2)):
        for number in range(count):
            rng = np.random.default_rng(number)
            colors = np.array([(0, 0, 0), (128, 0, 0), (0, 0, 128)], np.uint8)
            labels = colors[rng.integers(0, 3, (4, 4))].repeat(4, 0).repeat(4, 1)
            photo = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            (root / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.concatenate([labels, photo], 1)).save(root / split / f"{number}.png")
    return root


def test_label_maps_arrive_as_they_are_with_their_classes(tmp_path: Path) -> None:
    config = Pix2PixConfig(**PAIRS, classes="auto")
    data = Pix2PixTrainer.load_data(config, label_maps(tmp_path / "pairs"))
    trainer = Pix2PixTrainer(config, **data)
    view = views_of(trainer)["translations"]
    assert view.lossless and view.options()[0].choices == ("0.png", "1.png")
    labels = np.asarray(Image.open(tmp_path / "pairs" / "val" / "1.png"))[:, :16]
    np.testing.assert_array_equal(cells(trainer, view, sample="1.png")["input"], labels)
    asked = window(view, 60, 40, sample="1.png")  # smaller than the pictures are
    with trainer.evaluating():
        drawn = view.draw(asked)
        left, top, width, height = view.sheet(asked).place(0)
        found = view.inspect(asked, left + 1, top + 1)
    colors = {tuple(color) for color in labels.reshape(-1, 3).tolist()}
    assert {tuple(color) for color in drawn[top : top + height, left : left + width].reshape(-1, 3).tolist()} <= colors
    color = "#{:02x}{:02x}{:02x}".format(*labels[found["row"], found["column"]])
    assert found["input: colour"] == color
    assert str(config.palette).split()[found["input: class"]] == color


def test_colorization_shows_photographs() -> None:
    photographs = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(4)) * 2 - 1
    light = rgb_to_lab((photographs + 1) / 2)[:, :1] / 50 - 1
    trainer = ColorizationTrainer(data=(light, photographs), validation_data=(light, photographs), **PAIRS)
    view = views_of(trainer)["translations"]
    shown = cells(trainer, view, sample="0001")
    np.testing.assert_array_equal(shown["target"], to_pixels(photographs[1]))
    assert np.ptp(shown["input"].astype(int), axis=2).max() <= 1  # gray
    with trainer.evaluating():
        output = trainer.translate(light[1:2], trainer.generator)
        np.testing.assert_array_equal(shown["output"], to_pixels(output[0]))
        asked = window(view, sample="0001")
        left, top, *_ = view.sheet(asked).place(0)
        found = view.inspect(asked, left, top)
    assert found["input: value"] == pytest.approx(float(light[1, 0, 0, 0] + 1) * 50, abs=1e-4)  # L, 0 to 100
    assert found["target: red"] == int(shown["target"][0, 0, 0])


def test_without_validation_data_the_samples_are_those_that_are_looked_at() -> None:
    trainer = Pix2PixTrainer(data=pictures(9), **PAIRS | {"examples": 2})
    view = views_of(trainer)["translations"]
    assert view.options()[0].choices == ("0000", "0001")
    np.testing.assert_array_equal(cells(trainer, view, sample="0001")["target"], to_pixels(pictures(9)[1][1]))


# There and back -----------------------------------------------------------------------------------------------------


def folders(root: Path) -> Path:
    rng = np.random.default_rng(7)
    for folder, count in (("trainA", 3), ("trainB", 3), ("valA", 2), ("valB", 3)):
        (root / folder).mkdir(parents=True)
        for number in range(count):
            picture = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(picture).save(root / folder / f"{folder[-1]}{number}.png")
    return root


def test_pictures_go_there_and_back_in_both_directions(tmp_path: Path) -> None:
    config = CycleGANConfig(**CYCLES)
    trainer = CycleGANTrainer(config, **CycleGANTrainer.load_data(config, folders(tmp_path / "sides")))
    views = views_of(trainer)
    assert list(views)[:2] == ["A to B", "B to A"]
    there, back = views["A to B"], views["B to A"]
    assert there.options()[0].choices == ("A0.png", "A1.png")
    assert back.options()[0].choices == ("B0.png", "B1.png", "B2.png")
    shown = cells(trainer, back, sample="B2.png")
    assert list(shown) == ["input", "output", "back", f"|error| x {ERROR_GAIN}"]
    picture = np.asarray(Image.open(tmp_path / "sides" / "valB" / "B2.png"))
    np.testing.assert_array_equal(shown["input"], picture)
    with trainer.evaluating():
        start = to_tensor(picture)[None]
        output = trainer.translate(start, trainer.generator_ba)
        returned = trainer.translate(output, trainer.generator_ab)
        samples = list(back.samples())
    np.testing.assert_array_equal(shown["output"], to_pixels(output[0]))
    np.testing.assert_array_equal(shown["back"], to_pixels(returned[0]))
    error = np.abs(shown["back"].astype(float) - picture).mean(2) / 255 * ERROR_GAIN
    np.testing.assert_allclose(shown[f"|error| x {ERROR_GAIN}"], error.clip(0, 1), atol=1e-6)
    assert samples[2].figures == {"cycle": measure(returned, start)["l1"][0]} and back.worst == "highest"


def test_each_direction_has_the_numbers_of_its_side() -> None:
    settings = {"in_channels": 1, "in_dtype": "uint16", "weights": {"G_IDENTITY_A": 0.0, "G_IDENTITY_B": 0.0}}
    given = pictures(2, 5, (1, 3))
    trainer = CycleGANTrainer(data=given, validation_data=given, **CYCLES | settings)
    for name, deep, colours in (("A to B", "input", "output"), ("B to A", "output", "input")):
        view = views_of(trainer)[name]
        asked = window(view)
        with trainer.evaluating():
            left, top, *_ = view.sheet(asked).place(0)
            found = view.inspect(asked, left, top)
            start = given[0 if name == "A to B" else 1][:1]
            made = trainer.there_and_back(start, "ab" if name == "A to B" else "ba")
        assert found[f"{deep}: value"] == round((float(made[deep][0, 0, 0, 0]) + 1) / 2 * 65535) > 255
        assert found[f"{colours}: red"] == int(to_pixels(made[colours][0])[0, 0, 0])


def test_where_pairs_are_known_the_target_is_shown_and_measured() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8) for _ in range(2))
    trainer = CycleGANTrainer(data=pictures(), validation_data=PairedImages(ArrayPairs(a, b), 16), **CYCLES)
    view = views_of(trainer)["A to B"]
    shown = cells(trainer, view)
    assert list(shown) == ["input", "output", "back", "target", f"|error| x {ERROR_GAIN}"]
    with trainer.evaluating():
        found = view.figures(window(view))
    assert list(found) == ["cycle", "l1", "psnr", "ssim"]


def looking(trainer: Any, views: dict[str, LiveView]) -> Callable[[], None]:
    def look() -> None:
        for view in views.values():
            asked = window(view)
            view.prepare(asked), view.draw(asked), view.figures(asked), view.inspect(asked, 9, 30), list(view.samples())

    return look


@pytest.mark.parametrize("kind", ["pix2pix", "cyclegan"])
def test_looking_changes_no_bit_of_the_run(kind: str) -> None:
    made = {
        "pix2pix": lambda: pix2pix(),
        "cyclegan": lambda: CycleGANTrainer(data=pictures(), validation_data=pictures(2, 1), **CYCLES),
    }[kind]
    looked, alone = made(), made()
    views = views_of(looked)
    answers = [looked.commands.call(looking(looked, views))]
    while looked.iterate():
        answers.append(looked.commands.call(looking(looked, views)))
    assert [answer.result() for answer in answers] == [None] * 4 and len(views) == {"pix2pix": 2, "cyclegan": 3}[kind]
    alone.train()
    assert looked.digest() == alone.digest()
