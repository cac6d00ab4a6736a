from __future__ import annotations

import pytest
import torch

from treadle.fields.nerf import losses

WANTED = torch.tensor([[0.0, 0.5, 1.0], [0.2, 0.2, 0.2]])


@pytest.mark.parametrize(
    ("name", "error", "expected"),
    [("l2", 0.5, 0.25), ("l1", 0.5, 0.5), ("huber", 0.05, 0.0025), ("huber", 0.5, 2 * 0.1 * (0.5 - 0.05))],
)
def test_colours_are_compared_as_the_names_say(name: str, error: float, expected: float) -> None:
    found = losses.COLORS[name](WANTED + error, WANTED)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    assert losses.COLORS[name](WANTED, WANTED).item() == 0


def test_mape_is_relative_to_the_photograph() -> None:
    found = losses.mape(WANTED + 0.1, WANTED)
    assert found.item() == pytest.approx(sum(0.1 / (value + 0.01) for value in WANTED.flatten().tolist()) / 6, rel=1e-5)


def test_opacity_is_wanted_as_the_alpha_or_as_all_or_nothing() -> None:
    found = torch.tensor([0.0, 0.5, 1.0])
    assert losses.opacity(found, torch.tensor([0.0, 1.0, 1.0])).item() == pytest.approx(0.5 / 3)
    assert losses.opacity(found, None).item() == pytest.approx(0.25 / 3)


def test_depth_counts_where_it_is_known() -> None:
    wanted = torch.tensor([1.0, 0.0, 3.0])
    found, opacity = torch.tensor([1.0, 7.0, 1.0]), torch.tensor([1.0, 1.0, 1.0])
    assert losses.depth(found, opacity, wanted).item() == pytest.approx((0 + 2 / 4) / 2)
    assert losses.depth(found, opacity - 0.5, wanted).item() == pytest.approx((0 + 2 / 4) / 2 + 0.5)
    assert losses.depth(found, opacity, torch.zeros(3)).item() == 0


def test_sums_do_not_depend_on_the_number_of_threads() -> None:
    values, sums, before = torch.rand(1_000_003), set(), torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            sums.add(losses.total(values).item())
    finally:
        torch.set_num_threads(before)
    assert len(sums) == 1
    assert sums.pop() == pytest.approx(values.double().sum().item(), rel=1e-6)
    assert losses.mean(torch.zeros(0)).item() == 0
