from __future__ import annotations

import pytest
import torch

from treadle.fields.sdf import losses


def test_losses_are_what_their_names_say():
    found, wanted = torch.tensor([[0.03], [0.0], [-0.5]]), torch.tensor([[0.01], [0.004], [0.5]])
    error = torch.tensor([0.02, 0.004, 1.0])
    assert losses.l1(found, wanted) == pytest.approx(float(error.mean()))
    assert losses.l2(found, wanted) == pytest.approx(float(error.square().mean()))
    expected = (0.02 - 0.005 + 0.004**2 / 0.02 + 1 - 0.005) / 3
    assert losses.huber(found, wanted) == pytest.approx(expected, rel=1e-5)
    assert losses.mape(found, wanted) == pytest.approx((0.02 / 0.02 + 0.004 / 0.014 + 1 / 0.51) / 3, rel=1e-5)


def test_huber_is_smooth_where_it_turns():
    found = torch.tensor([0.01 - 1e-4, 0.01 + 1e-4], requires_grad=True)
    (losses.huber(found, torch.zeros(2)) * 2).backward()
    torch.testing.assert_close(found.grad, torch.ones(2), atol=0.011, rtol=0)


def test_gradients_of_length_one_cost_nothing():
    slopes = torch.tensor([[1.0, 0, 0], [0, 0.6, 0.8], [0, 0, 3]])
    assert losses.eikonal(slopes[:2]) == pytest.approx(0, abs=1e-12)
    assert losses.eikonal(slopes) == pytest.approx(4 / 3)


def test_colours_count_near_the_surface_alone():
    found, wanted = torch.zeros(2, 3), torch.ones(2, 3)
    assert losses.color(found, wanted, torch.tensor([[0.049], [-0.051]])) == pytest.approx(0.5)


@pytest.mark.parametrize("count", [1, 4095, 4096, 100_001])
def test_means_do_not_depend_on_the_number_of_threads(count):
    values = torch.randn(count, generator=torch.Generator().manual_seed(0))
    before, found = torch.get_num_threads(), set()
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.add(losses.mean(values).item())
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1 and found.pop() == pytest.approx(float(values.double().mean()), abs=1e-6)
