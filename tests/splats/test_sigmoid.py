from __future__ import annotations

import torch

from treadle.splats.sigmoid import sigmoid


def test_it_is_the_sigmoid_and_so_is_its_gradient() -> None:
    logits = torch.tensor([-1000.0, -90.0, -5.0, -0.0, 0.3, 5.0, 90.0, 1000.0], dtype=torch.float64, requires_grad=True)
    values = sigmoid(logits)
    torch.testing.assert_close(values, logits.sigmoid())
    values.sum().backward()
    expected = (logits.sigmoid() * (1 - logits.sigmoid())).detach()
    torch.testing.assert_close(logits.grad, expected)
    assert logits.grad.isfinite().all()
    torch.testing.assert_close(sigmoid(logits.detach().float()), logits.detach().float().sigmoid())


def test_threads_change_no_bit() -> None:
    before = torch.get_num_threads()
    try:
        for count in range(40_000, 40_050, 7):
            logits, found = torch.randn(count, generator=torch.Generator().manual_seed(count)) * 3, []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                found.append(sigmoid(logits))
            assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    finally:
        torch.set_num_threads(before)
