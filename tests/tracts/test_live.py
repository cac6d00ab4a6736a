"""Live views of tractography: lines in space and on slices, in pieces of one state, exact numbers, and no trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from small_tracts import SMALL, SPACE, VOXEL, data, volume

from treadle.hooks import Examples
from treadle.kernels.trilinear import interpolate
from treadle.reports.scene import Scene, checked
from treadle.reports.trainer_views import views_of
from treadle.reports.views import LiveView, Window, chosen
from treadle.sinks.base import Sink
from treadle.tracts.autoencoder_trainer import LineAutoencoderTrainer
from treadle.tracts.generation import generate, hold
from treadle.tracts.live_lines import MOST_LINES, Pieces
from treadle.tracts.panels import direction_colors
from treadle.tracts.slices import PAPER, Slice, bounds
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.subject import MemorySubject, TractData
from treadle.tracts.tracking.seeds import place_seeds
from treadle.tracts.tracking.tracker import track
from treadle.tracts.trainer import TractsTrainer


def make(**settings: Any) -> TractsTrainer:
    return TractsTrainer(data=data(), **SMALL | {"max_epochs": 3} | settings)


@lru_cache
def trained() -> TractsTrainer:
    trainer = make(max_epochs=8)
    trainer.train()
    return trainer


@lru_cache
def autoencoder() -> LineAutoencoderTrainer:
    return LineAutoencoderTrainer(data=data(), device="cpu", max_steps=2, points=64, latent=4, batch_size=12)


def window(view: LiveView, width: int = 80, height: int = 60, camera: str = "corner", **given: Any) -> Window:
    seen = None
    if view.kind == "space":
        seen = next(one for one in view.cameras() if one.name == camera).resized(width, height)
    return Window(width, height, (0, 0, width, height), seen, chosen(view.options(), given))


def prepared(trainer: Any, view: LiveView, asked: Window) -> int:
    """Prepare all of it; returns in how many pieces."""
    with trainer.evaluating():
        for piece in range(1, 1000):
            if view.prepare(asked):
                return piece
    raise AssertionError("it is never ready")


# Lines in space -----------------------------------------------------------------------------------------------------


def test_tracked_lines_are_those_of_a_tracking_and_come_in_pieces() -> None:
    trainer = trained()
    view = views_of(trainer)["tracts"]
    asked = window(view, seeds=128.0, most=1000.0)
    assert view.shapes(asked).lines.shape == (0, 3)
    assert prepared(trainer, view, asked) >= 2
    with trainer.evaluating():
        seeds = place_seeds(trainer.ground.seeding, seed=trainer.config.seed, total=128)
        subject = trainer.shown()
        wanted = track(trainer.propagator(subject), seeds, SPACE, trainer.ground.mask, trainer.tracking(),
                       seed=trainer.config.seed).lines  # fmt: skip
        shapes, figures = view.shapes(asked), view.figures(asked)
    np.testing.assert_array_equal(shapes.offsets, wanted.offsets)
    np.testing.assert_allclose(shapes.lines, SPACE.to_world(wanted.points), atol=1e-4)
    assert figures == {"lines": len(wanted), "seeds": 128, "of step": trainer.progress.step}
    assert shapes.lines.dtype == np.float32 and shapes.line_colors.dtype == np.uint8
    np.testing.assert_allclose(shapes.boxes, bounds(SPACE)[None], atol=1e-5)
    step = np.diff(shapes.lines[:2], axis=0)
    assert np.abs(shapes.line_colors[0] - direction_colors(step / np.linalg.norm(step)).astype(int)).max() <= 1
    few = view.shapes(window(view, seeds=128.0, most=10.0))
    assert len(few.offsets) == 11
    first, last = few.offsets[:2], few.offsets[-2:]
    np.testing.assert_array_equal(few.lines[slice(*first)], shapes.lines[slice(*shapes.offsets[:2])])
    np.testing.assert_array_equal(few.lines[slice(*last)], shapes.lines[slice(*shapes.offsets[-2:])])


def test_reference_lines_are_the_subject_s_and_errors_are_theirs() -> None:
    trainer = trained()
    view, lines = views_of(trainer)["tracts"], trainer.shown().streamlines("fibres")
    assert prepared(trainer, view, window(view, show="reference")) == 1
    shapes = view.shapes(window(view, show="reference"))
    np.testing.assert_allclose(shapes.lines, SPACE.to_world(lines.points), atol=1e-4)
    asked = window(view, show="errors")
    prepared(trainer, view, asked)
    with trainer.evaluating():
        judged = trainer.judge(trainer.test_feed)
        samples, errors = list(view.samples()), view.shapes(asked)
    wrong = judged.per_line(judged.angle)
    assert [sample.name for sample in samples] == [f"line {number}" for number in range(9)] and view.worst == "highest"
    np.testing.assert_allclose([sample.figures["angle"] for sample in samples], wrong, rtol=1e-5)
    own = judged.per_line(judged.loss)
    np.testing.assert_allclose([sample.figures["loss"] for sample in samples], own, rtol=1e-5)
    np.testing.assert_allclose(errors.lines, SPACE.to_world(judged.points), atol=1e-4)
    red = errors.line_colors[:, 0].astype(int) - errors.line_colors[:, 2]
    known = ~np.isnan(judged.angle)
    hottest, coolest = judged.angle[known].argmax(), judged.angle[known].argmin()
    assert red[known][hottest] > red[known][coolest]


def test_directions_start_at_points_and_lead_where_the_model_says() -> None:
    trainer = trained()
    view = views_of(trainer)["tracts"]
    asked = window(view, show="directions", most=1000.0)
    prepared(trainer, view, asked)
    shapes = view.shapes(asked)
    assert (np.diff(shapes.offsets) == 2).all()
    with trainer.evaluating():
        batch = trainer.feed_of([trainer.shown()]).gather(0, np.arange(9))
        said = trainer.model.getter.direction(trainer.model(batch.features, batch.previous, batch.offsets)).numpy()
    np.testing.assert_allclose(shapes.lines[::2], SPACE.to_world(batch.points.numpy()), atol=1e-4)
    ways = shapes.lines[1::2] - shapes.lines[::2]
    np.testing.assert_allclose(ways, VOXEL * said / np.linalg.norm(said, axis=1, keepdims=True), atol=1e-3)


def test_one_line_is_shown_with_what_is_tracked_from_its_middle() -> None:
    trainer = trained()
    view = views_of(trainer)["tracts"]
    asked = window(view, sample="line 4")
    prepared(trainer, view, asked)
    with trainer.evaluating():
        figures, shapes = view.figures(asked), view.shapes(asked)
        subject = trainer.shown()
        (held,) = hold([subject], "fibres", "input", 9, 4)
        one = replace(held, lines=held.lines.select(np.array([4])))
        wanted = generate([one], trainer.propagator, replace(trainer.tracking(), shortest=0.0), seed=0)
    assert figures["endpoint_distance"] == pytest.approx(wanted["endpoint_distance"], abs=1e-4)
    assert figures["angle"] == next(s for s in view.samples() if s.name == "line 4").figures["angle"]
    line = SPACE.to_world(subject.streamlines("fibres")[4])
    np.testing.assert_allclose(shapes.lines[: len(line)], line, atol=1e-4)
    assert len(shapes.offsets) - 1 == 1 + len(batch_of(trainer, 4)) + 1  # itself, directions, tracked


def batch_of(trainer: TractsTrainer, number: int) -> torch.Tensor:
    return trainer.feed_of([trainer.shown()]).gather(0, np.array([number])).points


def test_while_the_run_goes_on_lines_of_one_state_are_shown_until_those_of_the_next_are_whole() -> None:
    trainer = make()
    view = views_of(trainer)["tracts"]
    asked = window(view)
    prepared(trainer, view, asked)
    first = view.shapes(asked).lines
    seen, states = {}, {}
    while trainer.iterate():
        states[trainer.progress.step] = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        with trainer.evaluating():
            view.prepare(asked)
        seen[trainer.progress.step] = view.figures(asked)["of step"], view.shapes(asked).lines
    assert len(seen) > 3 and all(after <= step for step, (after, _) in seen.items())
    assert seen[1][0] == 0 and seen[1][1] is not None and np.array_equal(seen[1][1], first)
    begun, lines = seen[trainer.progress.step]
    assert 0 < begun < trainer.progress.step  # made while the run went on, and of one state all the same
    prepared(trainer, view, asked)
    assert view.figures(asked)["of step"] == trainer.progress.step
    trainer.model.load_state_dict(states[int(begun)])
    again = views_of(trainer)["tracts"]
    prepared(trainer, again, asked)
    np.testing.assert_array_equal(again.shapes(asked).lines, lines)


def test_pieces_of_another_question_begin_anew() -> None:
    state, begun = [0], []

    def begin(asked: int):
        begun.append((asked, state[0]))
        for piece in range(3):
            yield (asked, state[0], piece), piece == 2

    pieces = Pieces(begin, lambda: state[0])
    assert [pieces.go_on(7) for _ in range(4)] == [False, False, True, True] and pieces.found == (7, 0, 2)
    state[0] = 1
    assert not pieces.go_on(7) and pieces.found == (7, 0, 2)  # what there was, until all is there
    assert not pieces.go_on(9) and pieces.found == (9, 1, 0)
    pieces.go_on(9), pieces.go_on(9)
    assert pieces.found == (9, 1, 2) and begun == [(7, 0), (7, 1), (9, 1)]
    pieces.afresh()
    assert pieces.found == (9, 1, 2)
    state[0] = 2
    pieces.afresh()
    assert pieces.found is None


# Slices -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("camera", ["corner", "axial", "sagittal"])
def test_slices_in_space_show_the_volume_and_tiles_are_parts_of_them(camera: str) -> None:
    trainer = trained()
    view = views_of(trainer)["tracts"]
    asked = window(view, camera=camera, channel=3.0)
    whole, tiles = views_of(trainer)["tracts"].draw(asked), np.zeros((60, 80, 3), np.uint8)
    for box in ((0, 0, 80, 17), (0, 17, 33, 60), (33, 17, 80, 60)):
        left, top, right, bottom = box
        tiles[top:bottom, left:right] = view.draw(replace(asked, box=box))
    np.testing.assert_array_equal(tiles, whole)
    hits = 0
    white = np.percentile(volume()[..., 3], 99)
    for x in range(0, 80, 7):
        for y in range(0, 60, 7):
            found = view.inspect(asked, x, y)
            if not found:
                assert (whole[y, x] == PAPER).all()
                continue
            hits += 1
            place = SPACE.from_world(np.array([[found["x"], found["y"], found["z"]]]))
            value = float(interpolate(torch.from_numpy(volume()), torch.from_numpy(place.astype(np.float32)))[0, 3])
            assert found["value"] == pytest.approx(value, abs=1e-5)
            assert whole[y, x, 2] == pytest.approx(np.clip(value / white, 0, 1) * 255, abs=1)
            assert [found[f"voxel {axis}"] for axis in "ijk"] == np.floor(place[0]).astype(int).tolist()
            pose = asked.camera.world_to_camera @ [found["x"], found["y"], found["z"], 1.0]
            assert asked.camera.fx * pose[0] / pose[2] + asked.camera.cx == pytest.approx(x + 0.5)
    assert hits > 5


def test_each_slice_can_be_moved_and_left_out() -> None:
    view = views_of(trained())["tracts"]
    assert (view.draw(window(view, planes="none")) == PAPER).all()
    low, high = bounds(SPACE)
    for axis, name in enumerate(("sagittal", "coronal", "axial")):
        asked = window(view, planes=name, **{name: float(low[axis] + 0.3 * (high - low)[axis])})
        found = [view.inspect(asked, x, y) for x in range(0, 80, 5) for y in range(0, 60, 5)]
        there = {round(one["xyz"[axis]], 6) for one in found if one}
        assert there == {round(float(low[axis] + 0.3 * (high - low)[axis]), 6)}


def test_flat_slices_show_the_volume_and_the_lines_near_them() -> None:
    trainer = trained()
    view = views_of(trainer)["slices"]
    asked = window(view, 700, 330, show="reference", slab=2.0, axial=5.0)
    prepared(trainer, view, asked)
    axial, coronal, sagittal = view.cells(asked)
    names = [cell.name for cell in (axial, coronal, sagittal)]
    assert names == ["axial, 5.0 mm", "coronal, 11.0 mm", "sagittal, 11.0 mm"]
    assert axial.size == (320, 320) and coronal.size == (320, 133)
    bare = view.cells(window(view, 700, 330, show="reference", slab=0.0, axial=5.0))[0].picture
    drawn = np.argwhere((axial.picture != bare).any(axis=2))
    lines = trainer.shown().streamlines("fibres")
    world = SPACE.to_world(lines.points)
    near = world[np.abs(world[:, 2] - 5.0) <= 1.0]
    pixels = (near[:, 0] - bounds(SPACE)[0, 0]) * 320 / 24
    assert 0 < len(near) < len(world)
    assert drawn[:, 1].min() == pytest.approx(pixels.min(), abs=3)
    assert drawn[:, 1].max() == pytest.approx(pixels.max(), abs=3)
    found = axial.under(100, 40)
    place = Slice(SPACE, 2, 5.0).places(np.array([100]), np.array([40]))
    assert [found["x"], found["y"], found["z"]] == place[0].tolist() and place[0, 2] == 5.0
    value = interpolate(torch.from_numpy(volume()), torch.from_numpy(SPACE.from_world(place).astype(np.float32)))
    assert found["value"] == pytest.approx(float(value[0, 0]), abs=1e-5)
    with trainer.evaluating():
        whole = view.draw(asked)
        part = view.draw(replace(asked, box=(50, 20, 300, 211)))
    np.testing.assert_array_equal(part, whole[20:211, 50:300])


def test_up_is_front_and_the_right_is_right() -> None:
    cut = Slice(SPACE, 2, 4.0)
    corner = cut.places(np.array([0, cut.size[0] - 1]), np.array([0, 0]))
    assert corner[0, 0] < corner[1, 0] and corner[0, 1] == pytest.approx(bounds(SPACE)[1, 1], abs=0.05)


# Lines there and back -----------------------------------------------------------------------------------------------


def test_an_autoencoder_s_lines_stand_beside_what_becomes_of_them() -> None:
    trainer = autoencoder()
    view = views_of(trainer)["tracts"]
    assert [option.name for option in view.options()] == ["show", "most", "sample"]
    asked = window(view)
    prepared(trainer, view, asked)
    shapes = view.shapes(asked)
    assert len(shapes.offsets) - 1 == 9 and (view.draw(asked) == PAPER).all()
    with trainer.evaluating():
        batch = trainer.feed_of(trainer.tracts.testing).gather(0, np.arange(9))
        lines = trainer.lines_of(batch)
        back = trainer.box.leave(trainer.model(lines)).numpy()
        distance = ((trainer.model(lines) - lines).norm(dim=2).mean(dim=1) * trainer.box.unit).tolist()
        samples = list(view.samples())
    np.testing.assert_allclose(shapes.lines, SPACE.to_world(back.reshape(-1, 3)), atol=1e-4)
    assert [sample.figures["distance"] for sample in samples] == pytest.approx(distance, rel=1e-4)
    one = view.shapes(window(view, sample="line 3"))
    assert len(one.offsets) - 1 == 2
    flat = views_of(trainer)["slices"]
    whole = window(flat, 500, 300, slab=20.0)
    prepared(trainer, flat, whole)
    assert flat.draw(whole).shape == (300, 500, 3)


def test_of_many_lines_some_are_looked_at_evenly() -> None:
    held = data().testing[0]
    many = Streamlines.of([held.streamlines("fibres")[0]] * 400)
    subject = MemorySubject("many", SPACE, {"input": (volume(), "tensor")}, {"fibres": many})
    trainer = TractsTrainer(data=TractData(data().training, (), (subject,)), **SMALL | {"max_epochs": 1})
    names = views_of(trainer)["tracts"].options()[2].choices[1:]
    assert len(names) == MOST_LINES and names[0] == "line 0" and names[-1] == "line 399"


@pytest.mark.parametrize("kind", ["tracts", "autoencoder"])
def test_looking_changes_no_bit_of_the_run(kind: str) -> None:
    makers: dict[str, Callable[[], Any]] = {
        "tracts": lambda: make(max_epochs=1),
        "autoencoder": lambda: LineAutoencoderTrainer(
            data=data(), device="cpu", max_steps=3, points=64, latent=4, batch_size=12
        ),
    }
    looked, alone = makers[kind](), makers[kind]()
    views = {name: view for name, view in views_of(looked).items() if name != "examples"}

    def look() -> None:
        for view in views.values():
            for show in view.options()[0].choices:
                asked = window(view, 40, 40, show=show)
                view.prepare(asked), view.draw(asked), view.shapes(asked)
                view.figures(asked), view.inspect(asked, 9, 9)
            list(view.samples())

    answers = [looked.commands.call(look)]
    while looked.iterate():
        answers.append(looked.commands.call(look))
    assert len(answers) > 3 and {answer.result() for answer in answers} == {None}
    alone.train()
    assert looked.digest() == alone.digest()


@pytest.mark.parametrize("kind", ["tracts", "autoencoder"])
def test_scenes_are_lines_by_direction_and_change_no_bit_of_the_run(kind: str) -> None:
    class Scenes(Sink):
        steps: list[int] = []

        def scene(self, step: int, name: str, scene: Scene) -> None:
            self.steps.append(step)
            self.scenes = {name: checked(scene)}

    def made(*hooks: Any) -> Any:
        if kind == "tracts":
            return make(max_epochs=2, examples_every="1 epoch", hooks=hooks)
        few = {"device": "cpu", "max_steps": 2, "points": 64, "latent": 4, "batch_size": 12}
        return LineAutoencoderTrainer(data=data(), hooks=[*hooks, Examples("1 step")], **few)

    scenes = Scenes()
    watched, alone = made(scenes), made()
    watched.train(), alone.train()
    assert len(scenes.steps) == 2 and watched.digest() == alone.digest()
    scene = scenes.scenes["tracts"]
    assert scene.lines is not None and len(scene.lines) > 20 and scene.boxes is not None
    view = views_of(watched)["tracts"]
    asked = window(view, most=1000.0)
    prepared(watched, view, asked)
    np.testing.assert_allclose(scene.lines, view.shapes(asked).lines, atol=1e-5)
    np.testing.assert_array_equal(scene.line_colors, view.shapes(asked).line_colors)
