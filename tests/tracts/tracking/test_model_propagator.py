import numpy as np
import pytest
import torch

from treadle.errors import UsageError
from treadle.kernels.trilinear import interpolate, neighbourhood
from treadle.tracts.getters.settings import GetterSettings
from treadle.tracts.models.direction_model import DirectionModel, build_direction_model
from treadle.tracts.models.settings import ModelSettings
from treadle.tracts.space import Space
from treadle.tracts.tracking.model_propagator import ModelPropagator
from treadle.tracts.tracking.settings import TrackingSettings
from treadle.tracts.tracking.tracker import Tracked, track

SPACE = Space(np.diag([2.0, 1.0, 1.0, 1.0]), (10, 16, 9))
SEEDS = np.random.default_rng(0).uniform([2, 3, 2], [8, 13, 7], (150, 3)).astype(np.float32)


def volume(features: int = 4) -> torch.Tensor:
    return torch.randn((*SPACE.shape, features), generator=torch.Generator().manual_seed(1))


def model(getter: str = "cosine", inputs: int = 4, **given: object) -> DirectionModel:
    torch.manual_seed(0)
    built = build_direction_model(ModelSettings(), GetterSettings(getter=getter, **given), inputs)  # type: ignore[arg-type]
    for parameter in built.parameters():  # fresh weights say the same everywhere
        parameter.data *= 4
    return built.eval()


def lines(
    propagator: ModelPropagator, count: int = len(SEEDS), batch: int = 1000, seed: int = 0, **given: float
) -> Tracked:
    settings = TrackingSettings(step=0.7, theta=180, longest=12, shortest=0, batch=batch, **given)  # type: ignore[arg-type]
    return track(propagator, SEEDS[:count], SPACE, np.ones(SPACE.shape, bool), settings, seed=seed)


@pytest.mark.parametrize("neighbours", ["none", "axes"])
def test_the_second_half_is_what_the_model_says_of_the_whole_line(neighbours: str) -> None:
    """The state at the seed is that of a model that has walked through the first half from its far end."""
    offsets = None if neighbours == "none" else neighbourhood("axes", 1.0)
    network = model(inputs=4 if offsets is None else 28)
    found = lines(ModelPropagator(network, volume(), offsets), opposite=False)
    checked = 0
    for index in range(len(found.lines)):
        line = torch.from_numpy(found.lines[index].copy())
        start = int((line == torch.from_numpy(found.seeds[index])).all(dim=1).nonzero()[0, 0])
        steps = torch.diff(line, dim=0) * torch.tensor([2.0, 1.0, 1.0])
        previous = torch.cat([torch.zeros(1, 3), steps])
        with torch.no_grad():
            said = network(interpolate(volume(), line, offsets), previous, torch.tensor([0, len(line)]))
            directions = network.getter.direction(said)
        if start > 0 and len(line) > start + 1:
            assert torch.allclose(directions[start:-1], steps[start:] / 0.7, atol=1e-4)
            checked += 1
    assert checked > 50


@pytest.mark.parametrize("getter", ["cosine", "fisher"])
def test_lines_are_the_same_to_the_last_bit_in_any_batch(getter: str) -> None:
    network, sampled = model(getter), getter == "fisher"
    whole = lines(ModelPropagator(network, volume(), sampled=sampled), sampled=sampled)
    for batch in (37, 128):
        parts = lines(ModelPropagator(network, volume(), sampled=sampled), sampled=sampled, batch=batch)
        assert parts.lines.points.tobytes() == whole.lines.points.tobytes()
    alone = lines(ModelPropagator(network, volume(), sampled=sampled), count=3, sampled=sampled, batch=1)
    assert np.array_equal(alone.lines.points, whole.lines.points[: len(alone.lines.points)])


def test_sampling_depends_on_the_seed_alone() -> None:
    network = model("fisher")
    first, again, other = (lines(ModelPropagator(network, volume(), sampled=True), 20, seed=seed) for seed in (1, 1, 2))
    likeliest = lines(ModelPropagator(network, volume()), 20)
    assert np.array_equal(first.lines.points, again.lines.points)
    for differing in (other, likeliest):
        assert not np.array_equal(first.lines.points[:40], differing.lines.points[:40])


def test_a_learnt_end_stops_lines() -> None:
    network = model(ends=True)
    free = lines(ModelPropagator(network, volume()), eos_stop=None)
    stopped = lines(ModelPropagator(network, volume()), eos_stop=0.2)
    assert free.counts()["stopped by end"] == 0 < stopped.counts()["stopped by end"]


def test_another_volume_and_sampling_what_cannot_be_sampled_are_refused() -> None:
    with pytest.raises(UsageError, match="5 features"):
        ModelPropagator(model(), volume(5))
    with pytest.raises(UsageError, match="28 features"):
        ModelPropagator(model(), volume(), neighbourhood("axes", 1.0))
    with pytest.raises(UsageError, match="'cosine' says one direction"):
        ModelPropagator(model(), volume(), sampled=True)
