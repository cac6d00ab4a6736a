from __future__ import annotations

from treadle.fields.nerf.rate import RayRate


def test_it_comes_to_the_samples_that_are_wanted() -> None:
    rate = RayRate(target=10_000, first=100, most=5_000)
    for _ in range(12):
        rate.tell(rate.rays, samples=8 * rate.rays)
    assert rate.rays == 1_216  # the largest multiple of 64 with at most 10,000 samples
    rate.tell(rate.rays, samples=100 * rate.rays)
    assert rate.rays == 64
    for _ in range(12):
        rate.tell(rate.rays, samples=1)
    assert rate.rays == 5_000


def test_it_grows_by_two_at_most() -> None:
    rate = RayRate(target=10_000, first=128, most=5_000)
    rate.tell(128, samples=0)
    assert rate.rays == 256


def test_without_a_target_every_step_takes_the_same() -> None:
    rate = RayRate(target=None, first=100, most=5_000)
    rate.tell(5_000, samples=10)
    assert rate.rays == 5_000


def test_it_goes_on_where_it_was() -> None:
    rate = RayRate(target=10_000, first=100, most=5_000)
    rate.tell(100, samples=900)
    other = RayRate(target=10_000, first=100, most=5_000)
    other.load_state_dict(rate.state_dict())
    assert other.rays == rate.rays != 100
