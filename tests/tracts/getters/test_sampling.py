"""Sampled directions against the distributions that they are drawn from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import expit, softmax

from treadle.errors import UsageError
from treadle.tracts.getters.settings import GETTERS, GetterSettings, build_getter
from treadle.tracts.getters.sphere import sphere

DRAWN = 20_000
BANDS, SECTORS, FINE = 6, 8, 20
"""The sphere is cut into so many pieces of equal area; densities are summed over FINE x FINE places in each."""

Density = Callable[[np.ndarray], np.ndarray]


def draw(name: str, parameters: list[float], ends: bool) -> np.ndarray:
    """Directions for one row of parameters, by uniforms that are always the same."""
    settings: Any = {"getter": name, "classes": 42, "mixtures": 2, "ends": ends}
    getter = build_getter(GetterSettings(**settings), 4)
    rng = torch.Generator().manual_seed(7)
    uniforms = torch.rand(DRAWN, getter.uniforms, generator=rng).clamp(1e-7, 1 - 1e-7)
    rows = torch.tensor([*parameters, *([9.0] if ends else [])]).expand(DRAWN, -1)
    found = getter.sample(rows, uniforms)
    assert torch.allclose(found.norm(dim=1), torch.ones(DRAWN), atol=1e-5)
    return found.double().numpy()


def pieces(directions: np.ndarray) -> np.ndarray:
    """How many directions lie in each piece of the sphere."""
    band = np.clip(((directions[:, 2] + 1) / 2 * BANDS).astype(int), 0, BANDS - 1)
    turn = np.arctan2(directions[:, 1], directions[:, 0]) / (2 * np.pi) % 1
    sector = np.clip((turn * SECTORS).astype(int), 0, SECTORS - 1)
    return np.bincount(band * SECTORS + sector, minlength=BANDS * SECTORS)


def shares(density: Density) -> np.ndarray:
    """The probability of each piece, by the midpoint rule."""
    z = (np.arange(BANDS * FINE) + 0.5) / (BANDS * FINE) * 2 - 1
    phi = (np.arange(SECTORS * FINE) + 0.5) / (SECTORS * FINE) * 2 * np.pi
    z, phi = (part.ravel() for part in np.meshgrid(z, phi, indexing="ij"))
    flat = np.sqrt(1 - z**2)
    directions = np.stack([flat * np.cos(phi), flat * np.sin(phi), z], axis=1)
    values = density(directions).reshape(BANDS, FINE, SECTORS, FINE).sum((1, 3)).ravel()
    assert values.sum() * 4 * np.pi / (BANDS * SECTORS * FINE**2) == pytest.approx(1, abs=2e-3), "a density"
    return np.asarray(values / values.sum())


def angular(mean: list[float], log_sigma: list[float]) -> Density:
    """The density of directions of a Gaussian's points: summed along each ray."""

    def density(directions: np.ndarray) -> np.ndarray:
        radii = (np.arange(150) + 0.5) / 150 * 5
        total = np.zeros(len(directions))
        for radius in radii:
            logs = stats.norm.logpdf(radius * directions, mean, np.exp(log_sigma)).sum(1)
            total += np.exp(logs) * radius**2
        return total * (radii[1] - radii[0])

    return density


def narrow(mean: list[float], a: float) -> Density:
    law = stats.vonmises_fisher(np.array(mean) / np.linalg.norm(mean), 20 * expit(a))
    return lambda directions: np.asarray(law.pdf(directions))


def mixed(logits: list[float], parts: list[Density]) -> Density:
    weights = softmax(logits)
    return lambda directions: np.asarray(sum(w * part(directions) for w, part in zip(weights, parts, strict=True)))


ONE, TWO = ([0.5, 0.3, -0.4], [-0.3, 0.1, -0.6]), ([-0.8, 0.2, 0.6], [-0.9, -0.5, -0.2])
CASES: dict[str, tuple[list[float], Density]] = {
    "gaussian": ([*ONE[0], *ONE[1]], angular(*ONE)),
    "gaussian-mixture": (
        [0.3, -0.6, *ONE[0], *TWO[0], *ONE[1], *TWO[1]], mixed([0.3, -0.6], [angular(*ONE), angular(*TWO)]),
    ),
    "fisher": ([0.2, -2.0, 0.9, -1.9], narrow([0.2, -2.0, 0.9], -1.9)),
    "fisher-mixture": (
        [-0.2, 0.5, 1.0, 1.0, 0.1, 0.1, -0.2, -3.0, -2.5, -0.4],
        mixed([-0.2, 0.5], [narrow([1.0, 1.0, 0.1], -2.5), narrow([0.1, -0.2, -3.0], -0.4)]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("name", sorted(CASES))
def test_samples_follow_the_density(name: str, ends: bool) -> None:
    parameters, density = CASES[name]
    counts = pieces(draw(name, parameters, ends))
    wanted = shares(density) * DRAWN
    kept = wanted >= 5
    rest = ([counts[~kept].sum()], [wanted[~kept].sum()]) if wanted[~kept].sum() >= 5 else ([], [])
    counts, wanted = np.append(counts[kept], rest[0]), np.append(wanted[kept], rest[1])
    assert len(counts) >= 20
    assert stats.chisquare(counts, wanted * counts.sum() / wanted.sum()).pvalue > 1e-3


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("name", ["sphere", "smooth-sphere"])
def test_classes_are_drawn_by_their_probabilities(name: str, ends: bool) -> None:
    logits = np.random.default_rng(3).normal(0, 1.2, 42)
    found = draw(name, [float(logit) for logit in logits], ends)
    nearest = (found @ sphere(42).T).argmax(1)
    assert np.allclose(found, sphere(42)[nearest], atol=1e-6)
    assert stats.chisquare(np.bincount(nearest, minlength=42), softmax(logits) * DRAWN).pvalue > 1e-3


@pytest.mark.parametrize("name", [name for name, kind in GETTERS.items() if kind.uniforms])
def test_a_sample_depends_on_its_own_row_alone(name: str) -> None:
    torch.manual_seed(0)
    getter = build_getter(GetterSettings(getter=name, classes=42), 4)  # type: ignore[arg-type]
    parameters, uniforms = getter(torch.randn(64, 4)).detach(), torch.rand(64, getter.uniforms)
    whole = getter.sample(parameters, uniforms)
    some = torch.tensor([40, 3, 3, 17])
    assert torch.allclose(getter.sample(parameters[some], uniforms[some]), whole[some], atol=1e-6)
    with pytest.raises(UsageError, match=rf"'{name}' takes {getter.uniforms} uniforms"):
        getter.sample(parameters, uniforms[:, :-1])


@pytest.mark.parametrize("name", [name for name, kind in GETTERS.items() if kind.uniforms])
def test_uniforms_at_the_rim_give_directions(name: str) -> None:
    torch.manual_seed(0)
    getter = build_getter(GetterSettings(getter=name, classes=42), 4)  # type: ignore[arg-type]
    parameters = getter(torch.randn(2, 4))
    for uniform in (2.0**-24, 1 - 2.0**-24):
        found = getter.sample(parameters, torch.full((2, getter.uniforms), uniform))
        assert torch.allclose(found.norm(dim=1), torch.ones(2), atol=1e-5)
