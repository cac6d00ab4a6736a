from __future__ import annotations

import math

import pytest
import torch
from stage import Stage, stage

from treadle.engine.schedule import Every, Span
from treadle.splats.strategies.adc import ADC, halves, lower_opacities
from treadle.splats.strategies.base import Window


def adc(**settings) -> ADC:
    return ADC(Window(Every("100 steps")), Window(Every("300 steps")), **settings)


def pulled(scene: Stage, strategy: ADC, pull: list[float]) -> None:
    strategy.pulled.clear(scene.model.means)
    strategy.pulled.lengths += torch.tensor(pull) * 3
    strategy.pulled.views += 3


def test_small_ones_are_cloned_and_large_ones_split_with_adams_moments_kept() -> None:
    scene, strategy = stage([0.0] * 4, [0.005, 0.05, 0.005, 0.05], {"label": torch.arange(4.0)}), adc()
    pulled(scene, strategy, [3e-4, 4e-4, 1e-4, 1.9e-4])
    before = {name: rows.detach().clone() for name, rows in scene.model.rows.items()}
    strategy.change(scene)
    model = scene.model
    # 0 is cloned; 1 is replaced by its halves; 2 and 3 are left alone.
    assert model.extra["label"].tolist() == [0, 2, 3, 0, 1, 1]
    assert torch.equal(model.means[:4], before["means"][[0, 2, 3, 0]])
    assert torch.equal(model.log_scales[:4], before["log_scales"][[0, 2, 3, 0]])
    assert torch.allclose(model.log_scales[4:], before["log_scales"][[1, 1]] - math.log(1.6))
    assert (model.means[4:] != before["means"][1]).any(1).all() and not torch.equal(model.means[4], model.means[5])
    for name in ("quaternions", "logits", "dc", "rest"):
        assert torch.equal(model.rows[name][4:], before[name][[1, 1]]), name
    for name in model.rows:
        moments = scene.moments(name).flatten(1) if scene.moments(name).dim() > 1 else scene.moments(name)[:, None]
        assert (moments[:3] != 0).all() and (moments[3:] == 0).all(), name
    assert strategy.pulled.views.tolist() == [0] * 6


def test_halves_are_drawn_from_the_splat_itself() -> None:
    scene = stage([0.0] * 4000, [0.2] * 4000)
    with torch.no_grad():
        scene.model.quaternions.copy_(torch.tensor([1.0, 0.0, 0.0, 1.0]).expand(4000, 4))  # x to y, y to -x
    shift, _ = halves(scene.model, torch.arange(4000), torch.Generator().manual_seed(0))
    assert shift.shape == (8000, 3)
    assert shift.std(0).tolist() == pytest.approx([0.1, 0.2, 0.05], rel=0.05)


def test_what_has_faded_is_removed_and_what_is_too_large_after_the_first_reset() -> None:
    logits = [math.log(0.004 / 0.996), math.log(0.006 / 0.994), 0.0, 0.0]
    for step, kept in ((300, [1, 2, 3]), (400, [1, 2])):
        scene, strategy = stage(logits, [0.02, 0.02, 0.02, 0.2], {"label": torch.arange(4.0)}), adc()
        scene.step = step
        pulled(scene, strategy, [0.0] * 4)
        strategy.change(scene)
        assert scene.model.extra["label"].tolist() == kept


def test_at_the_cap_the_hardest_pulled_come_first_and_the_dead_still_go() -> None:
    scene, strategy = stage([0.0, 0.0, 0.0, -9.0], [0.005] * 4, {"label": torch.arange(4.0)}), adc(cap=5)
    pulled(scene, strategy, [1.0, 3.0, 2.0, 0.0])
    strategy.change(scene)
    assert scene.model.extra["label"].tolist() == [0, 1, 2, 1]
    pulled(scene, adc(), [1.0] * 4)
    full = adc(cap=4)
    pulled(scene, full, [1.0] * 4)
    with torch.no_grad():
        scene.model.logits[0] = -9
    full.change(scene)
    assert scene.model.extra["label"].tolist() == [1, 2, 1]


def test_a_reset_lowers_opacities_and_forgets_their_moments_alone() -> None:
    scene = stage([2.0, -6.0], [0.1, 0.1])
    lower_opacities(scene, 0.01)
    assert scene.model.opacities().tolist() == pytest.approx([0.01, 1 / (1 + math.exp(6))])
    assert (scene.moments("logits") == 0).all() and (scene.moments("means") != 0).all()


@pytest.mark.parametrize(("over_white", "resets"), [(False, [300, 600, 900]), (True, [200, 300, 600, 900])])
def test_when_it_acts(over_white: bool, resets: list[int]) -> None:
    from test_base import seen

    changes, found = [], []

    class Watched(ADC):
        def change(self, scene) -> None:
            changes.append(scene.step)
            self.pulled.clear(scene.model.means)

    grow = Window(Every("100 steps"), Span.parse("20%"), Span.parse("70%"))
    strategy = Watched(grow, Window(Every("30%"), None, Span.parse("95%")), over_white=over_white)
    scene = stage([5.0], [0.1])
    for scene.step in range(1, 1001):
        with torch.no_grad():
            scene.model.logits.fill_(5.0)
        strategy.after_update(scene, seen([[1.0, 0.0]], [True]))
        if scene.model.logits.item() < 0:
            found.append(scene.step)
    assert changes == [300, 400, 500, 600]
    assert found == resets
    assert strategy.pulled.views.tolist() == [99], "after the last change nobody asks any more"
