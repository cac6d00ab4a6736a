from __future__ import annotations

import pytest
import torch

from treadle.errors import UsageError
from treadle.tracts.models.autoencoder import AutoencoderSettings, LineAutoencoder


def test_it_has_fintas_layers() -> None:
    model = LineAutoencoder()
    assert [tuple(layer.weight.shape) for layer in model.down] == [
        (32, 3, 3), (64, 32, 3), (128, 64, 3), (256, 128, 3), (512, 256, 3), (1024, 512, 3),
    ]  # fmt: skip
    assert [tuple(layer.weight.shape) for layer in model.up] == [
        (512, 1024, 3), (256, 512, 3), (128, 256, 3), (64, 128, 3), (32, 64, 3), (3, 32, 3),
    ]  # fmt: skip
    assert model.to_latent.weight.shape == (32, 8192) and model.from_latent.weight.shape == (8192, 32)


def test_lines_become_few_numbers_and_lines_again() -> None:
    torch.manual_seed(0)
    model, lines = LineAutoencoder(64, 5, 2), torch.randn(7, 64, 3)
    assert model.encode(lines).shape == (7, 5)
    back = model(lines)
    assert back.shape == lines.shape and torch.equal(back, model.decode(model.encode(lines)))
    wanted = ((back - lines) ** 2).flatten(1).sum(1) / (64 * 3)
    assert torch.allclose(model.loss(lines), wanted)
    assert torch.allclose(model(lines[2:3]), back[2:3], atol=1e-6)


def test_layers_are_applied_as_dwi_ml_applies_them() -> None:
    torch.manual_seed(0)
    model, lines = LineAutoencoder(64, 5, 2), torch.randn(3, 64, 3)
    pad, larger = torch.nn.ReflectionPad1d(1), torch.nn.Upsample(scale_factor=2, mode="linear", align_corners=False)
    found = lines.swapaxes(1, 2)
    for index, layer in enumerate(model.down):
        found = torch.nn.functional.conv1d(pad(found), layer.weight, layer.bias, stride=2 if index < 5 else 1)
        found = found.relu() if index < 5 else found
    assert torch.allclose(model.encode(lines), model.to_latent(found.flatten(1)), atol=1e-6)
    found = model.from_latent(model.encode(lines)).view(found.shape)
    for index, layer in enumerate(model.up):
        found = torch.nn.functional.conv1d(pad(found), layer.weight, layer.bias)
        found = larger(found.relu()) if index < 5 else found
    assert torch.allclose(model(lines), found.swapaxes(1, 2), atol=1e-6)


def test_it_learns_lines() -> None:
    torch.manual_seed(0)
    lines = torch.randn(5, 1, 3) + torch.linspace(0, 1, 64)[:, None] * torch.randn(5, 1, 3)
    model = LineAutoencoder(64, 6, 8)
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=4e-3), []
    for _ in range(100):
        loss = model.loss(lines).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]


def test_points_must_fit() -> None:
    with pytest.raises(UsageError, match="points is 100: expected a multiple of 32"):
        AutoencoderSettings(points=100)
    with pytest.raises(UsageError, match="lines of 32 points: the autoencoder takes a multiple of 32, at least 64"):
        LineAutoencoder(32)
    with pytest.raises(UsageError, match=r"lines of the shape \(64, 2\): expected 64 points of 3 coordinates"):
        LineAutoencoder(64, 4, 1).encode(torch.zeros(2, 64, 2))
