from __future__ import annotations

import pytest
import torch

from treadle.kernels import adam as module
from treadle.kernels.adam import Adam

OPTIONS = {"lr": 0.05, "betas": (0.9, 0.99), "eps": 1e-15}


def parameters(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in ((5000, 7), (3,), (4, 4))
    ]


def train(optimizer, found, steps=6, start=0):
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(step)
        for parameter in found:
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        found[2].grad = None  # one that has no gradient stays
        found[0].grad[100:] = 0  # rows that nothing has touched
        optimizer.step()
    return found


def test_it_is_torchs_adam():
    ours, theirs = parameters(), parameters()
    optimizer, oracle = Adam(ours, **OPTIONS), torch.optim.Adam(theirs, **OPTIONS)
    train(optimizer, ours), train(oracle, theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert not torch.equal(ours[0], parameters()[0]) and torch.equal(ours[2], parameters()[2])
    assert (ours[0][100:] == parameters()[0][100:]).all()


def test_its_state_is_torchs():
    first, second = parameters(), parameters()
    optimizer, oracle = Adam(first, **OPTIONS), torch.optim.Adam(second, **OPTIONS)
    train(optimizer, first, 3), train(oracle, second, 3)
    moved = Adam(second, **OPTIONS)
    moved.load_state_dict(oracle.state_dict())
    oracle.load_state_dict(optimizer.state_dict())
    train(optimizer, first, 3, start=3), train(moved, second, 3, start=3)
    torch.testing.assert_close(first[0], second[0], rtol=1e-5, atol=1e-6)


def test_bitwise_equal_in_any_number_of_parts(monkeypatch):
    def trained():
        found = parameters()
        return train(Adam(found, **OPTIONS), found)[0]

    expected = trained()
    for parts in (1, 2, 3, 4):
        monkeypatch.setattr(module.threads, "parts_for", lambda work, parts=parts: parts)
        assert torch.equal(trained(), expected)


@pytest.mark.parametrize("options", [{"weight_decay": 0.1}, {"amsgrad": True}, {"maximize": True}])
def test_other_settings_take_torchs_step(options):
    ours, theirs = parameters(), parameters()
    train(Adam(ours, **OPTIONS, **options), ours), train(torch.optim.Adam(theirs, **OPTIONS, **options), theirs)
    assert torch.equal(ours[0], theirs[0])


def turned():
    return [p.detach().t().requires_grad_() if p.dim() == 2 else p for p in parameters()]


@pytest.mark.parametrize("make", [lambda: parameters(torch.float64), turned])
def test_other_tensors_take_torchs_step(make):
    ours, theirs = make(), make()
    train(Adam(ours, **OPTIONS), ours), train(torch.optim.Adam(theirs, **OPTIONS), theirs)
    assert torch.equal(ours[0], theirs[0])
