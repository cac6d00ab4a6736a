from __future__ import annotations

import math

import pytest
import torch
from stage import stage

from treadle.engine.schedule import Every
from treadle.splats.strategies.base import Window
from treadle.splats.strategies.mcmc import MCMC, MOST_PARTS, divided, draw, share


def logit(opacity: float) -> float:
    return math.log(opacity / (1 - opacity))


def mcmc(**settings) -> MCMC:
    return MCMC(Window(Every("100 steps")), **settings)


@pytest.mark.parametrize(("opacity", "parts"), [(0.5, 1), (0.5, 2), (0.9, 3), (0.3, 7), (0.99, 51), (0.02, 20)])
def test_the_parts_together_hide_and_cover_what_the_whole_did(opacity: float, parts: int) -> None:
    each, shrink = share(torch.tensor([opacity]), torch.tensor([parts]))
    assert 1 - (1 - each.item()) ** parts == pytest.approx(opacity, rel=1e-4)
    # Across the middle of n equal Gaussians at one place: 1 - (1 - o' G)^n, whose integral the size keeps.
    x = torch.linspace(-8, 8, 20001, dtype=torch.float64)
    whole = opacity * torch.exp(-(x**2) / 2)
    blended = 1 - (1 - each.double() * torch.exp(-((x / shrink.double()) ** 2) / 2)) ** parts
    assert blended.sum().item() == pytest.approx(whole.sum().item(), rel=1e-4)


def test_draws_follow_the_weights_and_never_take_what_has_none() -> None:
    weights = torch.tensor([0.0, 1.0, 0.0, 3.0, 0.0])
    drawn = draw(weights, 4000, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn, minlength=5).tolist()
    assert counts[0] == counts[2] == counts[4] == 0
    assert counts[3] / counts[1] == pytest.approx(3, rel=0.15)
    assert torch.equal(drawn, draw(weights, 4000, torch.Generator().manual_seed(0)))


def test_a_splat_that_is_drawn_often_becomes_many_equal_ones() -> None:
    scene = stage([logit(0.8), logit(0.5), logit(0.9)], [0.1, 0.2, 0.3])
    before = {name: rows.detach().clone() for name, rows in scene.model.rows.items()}
    parents, rows, parts = divided(scene.model, torch.tensor([2, 0, 2]))
    assert parents.tolist() == [0, 2]
    each, shrink = share(torch.tensor([0.8, 0.9]), torch.tensor([2, 3]))
    assert torch.allclose(rows["logits"].sigmoid(), each)
    assert torch.allclose(rows["log_scales"], before["log_scales"][parents] + shrink.log()[:, None])
    for name, values in parts.items():
        assert torch.equal(values, rows[name][[1, 0, 1]]), name
    for name in ("means", "quaternions", "dc", "rest"):
        assert torch.equal(rows[name], before[name][parents])


def test_the_dead_move_to_the_living() -> None:
    scene = stage([logit(0.001), logit(0.5), logit(0.005), logit(0.9)], [0.1] * 4, {"label": torch.arange(4.0)})
    mcmc().relocate(scene, torch.Generator().manual_seed(1))
    label = scene.model.extra["label"]
    assert len(label) == 4 and label[[1, 3]].tolist() == [1, 3]
    assert set(label[[0, 2]].tolist()) <= {1.0, 3.0}
    touched = torch.tensor([0, 2, *{int(number) for number in label[[0, 2]]}])
    for name in scene.model.rows:
        moments = scene.moments(name).flatten(1) if scene.moments(name).dim() > 1 else scene.moments(name)[:, None]
        assert (moments[touched] == 0).all(), name
    rest = [i for i in range(4) if i not in touched.tolist()]
    assert all((scene.moments(name)[rest] != 0).all() for name in scene.model.rows)
    assert (scene.model.opacities() > 0.1).all()


def test_nobody_moves_where_all_are_dead_or_none() -> None:
    for logits in ([-9.0, -9.0], [0.0, 0.0]):
        scene = stage(logits, [0.1, 0.1])
        mcmc().relocate(scene, torch.Generator().manual_seed(1))
        assert scene.model.means[:, 0].tolist() == [0, 1]
        assert (scene.moments("means") != 0).all()


def test_it_grows_by_a_share_up_to_the_budget_and_no_further() -> None:
    scene, strategy, counts = stage([0.0] * 40, [0.1] * 40), mcmc(cap=50, growth=0.1), []
    for seed in range(5):
        strategy.add(scene, torch.Generator().manual_seed(seed))
        counts.append(len(scene.model))
    assert counts == [45, 50, 50, 50, 50]


def test_the_nearly_dead_tremble_within_their_ellipsoid_and_the_others_stand_still() -> None:
    scene = stage([logit(0.001)] * 3000 + [logit(0.5)] * 3000, [0.2] * 6000)
    with torch.no_grad():
        scene.model.quaternions.copy_(torch.tensor([1.0, 0.0, 0.0, 1.0]).expand(6000, 4))  # x to y, y to -x
    for group in scene.optimizer.param_groups:
        group["lr"] = 1e-5 if group["name"] == "means" else 1.0
    before = scene.model.means.detach().clone()
    with torch.no_grad():
        mcmc(noise=2e5).shake(scene)
    moved = scene.model.means.detach() - before
    restless = 1 / (1 + math.exp(100 * (0.001 - 0.005)))
    # Sigma of a splat with deviations .2, .1, .05, turned by 90 degrees; times 2e5 * 1e-5 = 2.
    assert moved[:3000].std(0).tolist() == pytest.approx(
        [0.01 * 2 * restless, 0.04 * 2 * restless, 0.0025 * 2 * restless], rel=0.06
    )
    assert moved[3000:].abs().max() == 0


def test_more_parts_than_the_formula_bears_are_taken_as_the_most() -> None:
    assert MOST_PARTS == 51
    scene = stage([logit(0.9), 0.0], [0.1, 0.1])
    _, rows, _ = divided(scene.model, torch.zeros(90, dtype=torch.int64))
    assert torch.allclose(rows["logits"].sigmoid(), share(torch.tensor([0.9]), torch.tensor([51]))[0])
    assert rows["log_scales"].isfinite().all()
