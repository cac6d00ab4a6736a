"""Every direction getter against formulas in float64 written anew, its gradients, its ends, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import expit, log_softmax, logsumexp
from torch import Tensor

from treadle.errors import UsageError
from treadle.tracts.getters.getter import DirectionGetter
from treadle.tracts.getters.settings import GETTERS, GetterSettings, build_getter
from treadle.tracts.getters.sphere import sphere

NAMES = sorted(GETTERS)
WIDTH, CLASSES, MIXTURES, ENTROPY, WEIGHT = 9, 42, 3, 0.3, 0.7


def make(name: str, **given: Any) -> DirectionGetter:
    torch.manual_seed(0)
    given = {"classes": CLASSES, "mixtures": MIXTURES} | given
    return build_getter(GetterSettings(getter=name, **given), WIDTH)  # type: ignore[arg-type]


def points(getter: DirectionGetter, ends: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Parameters, targets and ends of two lines, in float64."""
    rng = torch.Generator().manual_seed(1)
    outputs = torch.randn(12, WIDTH, generator=rng, dtype=torch.float64) * 3
    parameters = getter.double()(outputs).detach()
    parameters = parameters + 0.3 * torch.randn(parameters.shape, generator=rng, dtype=torch.float64)
    last = torch.zeros(12, dtype=torch.bool)
    last[[4, 11]] = ends
    targets = torch.randn(12, 3, generator=rng, dtype=torch.float64)
    return parameters, targets.masked_fill(last[:, None], 0), last


def normal(t: np.ndarray, mean: np.ndarray, log_sigma: np.ndarray) -> float:
    return float(stats.multivariate_normal(mean, np.diag(np.exp(2 * log_sigma))).logpdf(t))


def fisher(t: np.ndarray, mean: np.ndarray, a: float) -> float:
    return float(stats.vonmises_fisher(mean / np.linalg.norm(mean), 20 * expit(a)).logpdf(t / np.linalg.norm(t)))


def expected(name: str, o: np.ndarray, t: np.ndarray) -> float:
    """What is wrong about one direction, by the formulas of the facts page."""
    k = MIXTURES
    cosine = 1 - o[:3] @ t / np.linalg.norm(o[:3]) / np.linalg.norm(t)
    if name == "cosine":
        return float(cosine)
    if name == "l2":
        return float(np.linalg.norm(o[:3] - t))
    if name == "cosine-l2":
        return float(cosine + np.linalg.norm(o[:3] - t))
    if name == "gaussian":
        entropy = stats.multivariate_normal(o[:3], np.diag(np.exp(2 * o[3:6]))).entropy()
        return float(-normal(t, o[:3], o[3:6]) - ENTROPY * entropy)
    if name == "gaussian-mixture":
        means, sigmas = o[k : 4 * k].reshape(k, 3), o[4 * k : 7 * k].reshape(k, 3)
        return -float(logsumexp([np.log(np.exp(o[j]) / np.exp(o[:k]).sum()) + normal(t, means[j], sigmas[j])
                                 for j in range(k)]))  # fmt: skip
    if name == "fisher":
        return -fisher(t, o[:3], o[3])
    if name == "fisher-mixture":
        means = o[k : 4 * k].reshape(k, 3)
        return -float(logsumexp([np.log(np.exp(o[j]) / np.exp(o[:k]).sum()) + fisher(t, means[j], o[4 * k + j])
                                 for j in range(k)]))  # fmt: skip
    vertices = sphere(CLASSES).astype(np.float32).astype(np.float64)
    vertices /= np.linalg.norm(vertices, axis=1, keepdims=True)
    angles = np.arccos(np.clip(vertices @ t / np.linalg.norm(t), -1, 1))
    if name == "sphere":
        return float(-log_softmax(o)[angles.argmin()])
    assert name == "smooth-sphere"
    q = np.exp(-angles / 0.1)
    q /= q.sum()
    return float(sum(q * (np.log(q) - log_softmax(o)[:CLASSES])))


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_losses_are_the_formulas(name: str, ends: bool) -> None:
    weights = ({"entropy_weight": ENTROPY} if name == "gaussian" else {}) | (
        {} if "sphere" in name else {"end_weight": WEIGHT}
    )
    getter = make(name, ends=ends, **weights)
    parameters, targets, last = points(getter, ends)
    found, end = getter.loss(parameters, targets, last)
    o, t = parameters.numpy(), targets.numpy()
    classes = "sphere" in name and ends
    wanted = [
        -log_softmax(o[i])[CLASSES] if last[i] else expected(name, o[i], t[i])
        for i in range(len(o))
        if classes or not last[i]
    ]
    # The vertices of spheres are float32.
    assert np.allclose(found.numpy(), wanted, rtol=1e-6 if "sphere" in name else 1e-12, atol=1e-12)
    if not ends or classes:
        assert end is None
    else:
        assert end is not None
        y = last.numpy()
        assert np.allclose(end.numpy(), -WEIGHT * np.log(np.where(y, expit(o[:, -1]), 1 - expit(o[:, -1]))))


@pytest.mark.parametrize("name", NAMES)
def test_single_precision_is_near(name: str) -> None:
    getter = make(name, ends=True)
    parameters, targets, last = points(getter, True)
    exact = getter.loss(parameters, targets, last)[0]
    found = getter.float().loss(parameters.float(), targets.float(), last)[0]
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), exact, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_gradients(name: str, ends: bool) -> None:
    getter = make(name, ends=ends).double()
    rng = torch.Generator().manual_seed(2)
    outputs = torch.randn(4, WIDTH, generator=rng, dtype=torch.float64, requires_grad=True)
    known = torch.randn(4, 3, generator=rng, dtype=torch.float64)
    targets = torch.randn(4, 3, generator=rng, dtype=torch.float64)
    last = torch.tensor([False, True, False, False]) & ends

    def total(outputs: Tensor) -> Tensor:
        error, end = getter.loss(getter.about(getter(outputs), known), targets, last)
        return error.mean() if end is None else error.mean() + end.mean()

    assert torch.autograd.gradcheck(total, [outputs])


@pytest.mark.parametrize("name", ["cosine", "l2", "cosine-l2", "gaussian", "fisher"])
def test_without_the_mask_it_is_what_dwi_ml_computes(name: str) -> None:
    """dwi_ml takes the direction's loss at ends, too, where the target is (0, 0, 0, 1); here its losses are torch's."""
    getter = make(name, ends=True, end_weight=WEIGHT)
    parameters, targets, last = points(getter, True)
    o, y = parameters, last.double()
    cosine = 1 - torch.nn.CosineSimilarity(dim=-1)(o[:, :3], targets)
    distance = torch.nn.PairwiseDistance(eps=0)(o[:, :3], targets)
    if name == "gaussian":
        covariance = torch.diag_embed(o[:, 3:6].exp() ** 2)
        theirs = -torch.distributions.MultivariateNormal(o[:, :3], covariance).log_prob(targets)
    elif name == "fisher":
        kappa, mean = 20 * o[:, 3].sigmoid(), torch.nn.functional.normalize(o[:, :3], dim=1)
        unit = torch.nn.functional.normalize(targets, dim=1)  # 0 stays 0: they normalise before they add the end
        theirs = -(
            kappa.log() - np.log(2 * np.pi) - (kappa.exp() - (-kappa).exp()).log() + kappa * (mean * unit).sum(1)
        )
    else:
        theirs = {"cosine": cosine, "l2": distance, "cosine-l2": cosine + distance}[name]
    value = theirs.mean() + WEIGHT * torch.nn.functional.binary_cross_entropy(o[:, -1].sigmoid(), y)

    error, end = getter.loss(parameters, targets, last)
    assert end is not None and len(error) == 10
    at_ends = {"cosine": torch.ones(2), "l2": o[last, :3].norm(dim=1)}.get(name, theirs[last])
    assert float((error.sum() + at_ends.sum()) / 12 + end.mean()) == pytest.approx(float(value), rel=1e-12)
    assert abs(float(error.mean() + end.mean()) - float(value)) > 1e-2, "and it matters"


@pytest.mark.parametrize("name", NAMES)
def test_ends_are_probabilities(name: str) -> None:
    getter = make(name, ends=True)
    parameters, _, _ = points(getter, True)
    said = parameters.numpy()
    wanted = np.exp(log_softmax(said, axis=1)[:, CLASSES]) if "sphere" in name else expit(said[:, -1])
    assert np.allclose(getter.end(parameters).numpy(), wanted)
    assert not make(name).end(parameters).any(), "nothing ends where ends were not learnt"


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_directions_are_the_likeliest_and_of_length_1(name: str, ends: bool) -> None:
    getter = make(name, ends=ends)
    parameters, _, _ = points(getter, ends)
    found = getter.direction(parameters)
    assert torch.allclose(found.norm(dim=1), torch.ones(12, dtype=torch.float64), atol=1e-6)
    if ends:
        surely = parameters.clone()
        surely[:, -1] = 60  # whether a line ends does not say where it goes
        assert torch.equal(getter.direction(surely), found)
    o = parameters.numpy()
    for row, direction in zip(o, found.numpy(), strict=True):
        if "sphere" in name:
            wanted = sphere(CLASSES)[row[:CLASSES].argmax()]
        elif "mixture" in name:
            wanted = row[MIXTURES : 4 * MIXTURES].reshape(MIXTURES, 3)[row[:MIXTURES].argmax()]
        else:
            wanted = row[:3]
        assert np.allclose(direction, wanted / np.linalg.norm(wanted), atol=1e-6)


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_about_a_known_direction_zeros_say_that_direction(name: str, ends: bool) -> None:
    getter = make(name, ends=ends)
    zeros = torch.zeros_like(getter(torch.zeros(4, WIDTH)))
    known = torch.tensor([[0.0, 0.0, 2.0], [0.3, -0.4, 0.0], [-0.1, 0.0, 0.0], [0.0, 0.0, 0.0]])
    parameters = getter.about(zeros, known)
    cosines = (getter.direction(parameters)[:3] * torch.nn.functional.normalize(known[:3], dim=1)).sum(1)
    assert cosines.min() > (0.95 if "sphere" in name else 1 - 1e-6)
    # Neither the end nor the shares are touched, and nothing is known at the start of a line.
    assert torch.allclose(getter.end(parameters), getter.end(zeros), atol=1e-7)
    assert torch.allclose(parameters[3], zeros[3], atol=1e-5)


@pytest.mark.parametrize("name", ["cosine", "sphere", "smooth-sphere", "fisher", "fisher-mixture"])
def test_how_long_a_known_direction_is_means_nothing_to_angles(name: str) -> None:
    getter = make(name)
    parameters, targets, _ = points(getter, False)
    assert torch.allclose(getter.about(parameters, targets), getter.about(parameters, 7 * targets))


@pytest.mark.parametrize("name", [name for name in NAMES if "sphere" not in name])
def test_the_first_head_says_the_end(name: str) -> None:
    getter: Any = make(name, ends=True)
    before = getter(torch.ones(1, WIDTH)).detach()
    with torch.no_grad():
        getter.heads[0][-1].bias[-1] += 1
    assert (getter(torch.ones(1, WIDTH)) - before).round(decimals=5).tolist() == [[0.0] * (before.shape[1] - 1) + [1.0]]


@pytest.mark.parametrize("name", ["l2", "cosine-l2", "gaussian", "gaussian-mixture"])
def test_targets_are_normalised_where_asked_for(name: str) -> None:
    as_they_are, brought = make(name), make(name, normalize_targets=2.0)
    parameters, targets, last = points(as_they_are, False)
    twice = targets / targets.norm(dim=1, keepdim=True) * 2
    assert torch.equal(brought.loss(parameters, targets, last)[0], as_they_are.loss(parameters, twice, last)[0])
    # What is known is measured alike.
    assert torch.allclose(brought.about(parameters, targets), as_they_are.about(parameters, twice))


def test_a_flat_fisher_distribution_is_the_uniform_one() -> None:
    getter = make("fisher")
    said = torch.tensor([[0.0, 0.0, 1.0, a] for a in (-8.0, -9.9, -10.1, -60.0, -200.0)], requires_grad=True)
    loss, _ = getter.loss(said, torch.tensor([[1.0, 0.0, 0.0]]).expand(5, 3), torch.zeros(5, dtype=torch.bool))
    assert torch.allclose(loss, torch.full((5,), np.log(4 * np.pi)).float(), atol=1e-5)
    loss.sum().backward()
    assert said.grad is not None and torch.isfinite(said.grad).all()


@pytest.mark.parametrize("name", ["cosine", "l2", "cosine-l2"])
def test_what_says_one_direction_cannot_be_sampled(name: str) -> None:
    getter = make(name)
    assert getter.uniforms == 0
    with pytest.raises(UsageError, match=f"'{name}' says one direction"):
        getter.sample(getter(torch.zeros(2, WIDTH)), torch.zeros(2, 0))


def test_heads_drop_out_in_training_alone() -> None:
    getter = make("gaussian", getter_dropout=0.5)
    outputs = torch.randn(5, WIDTH)
    assert not torch.equal(getter(outputs), getter(outputs))
    getter.eval()
    assert torch.equal(getter(outputs), getter(outputs))
