from __future__ import annotations

import pytest
import torch

from treadle.errors import UsageError
from treadle.fields import hash_field
from treadle.fields.hash_field import Decoder, HashEncoding, HashField, pixel_centres


def small(outputs=3, **options):
    torch.manual_seed(0)
    return HashField(HashEncoding(2, levels=3, log2_size=8, n_min=4, n_max=20), outputs, hidden=8, layers=1, **options)


def test_the_encoding_is_its_table_and_nothing_else():
    grid = HashEncoding(3, levels=4, features=2, log2_size=8, n_min=4, n_max=20)
    assert [(name, tuple(p.shape)) for name, p in grid.named_parameters()] == [("table", (grid.layout.rows, 2))]
    assert 0 < grid.table.abs().max() <= 1e-4
    assert grid(torch.zeros(5, 3)).shape == (5, 8)
    assert grid(torch.zeros(5, 3, dtype=torch.float64)).dtype == torch.float32
    assert "log2_size=8" in repr(grid)


def test_values_and_gradients_reach_every_parameter():
    field = small()
    field(torch.rand(200, 2) * 2 - 1).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in field.parameters())


def test_the_decoder_ends_as_asked():
    features = torch.randn(50, 4) * 100
    torch.manual_seed(1)
    linear = Decoder(4, 2, hidden=8, layers=2, output="none")
    torch.manual_seed(1)
    squashed = Decoder(4, 2, hidden=8, layers=2)
    torch.testing.assert_close(squashed(features), linear(features).sigmoid())
    assert [tuple(layer.weight.shape) for layer in linear.layers] == [(8, 4), (8, 8), (2, 8)]
    assert len(Decoder(4, 2, layers=0).layers) == 1


@pytest.mark.parametrize(
    ("options", "name"), [({"hidden": 0}, "hidden"), ({"layers": -1}, "layers"), ({"output": "tanh"}, "output")]
)
def test_a_decoder_that_cannot_be_built_is_refused(options, name):
    with pytest.raises(UsageError, match=name):
        Decoder(4, 2, **options)


def test_pixel_centres_row_by_row():
    expected = [[-0.5, -2 / 3], [0.5, -2 / 3], [-0.5, 0], [0.5, 0], [-0.5, 2 / 3], [0.5, 2 / 3]]
    torch.testing.assert_close(pixel_centres(3, 2), torch.tensor(expected), atol=1e-6, rtol=0)


def test_render_is_the_field_at_the_pixel_centres_whatever_the_chunk(monkeypatch):
    field = small(1)
    with torch.no_grad():
        field.grid.table.mul_(1e4)
    expected = field(pixel_centres(5, 7)).reshape(5, 7, 1)
    monkeypatch.setattr(hash_field, "CHUNK", 8)
    rendered = field.render(5, 7)
    torch.testing.assert_close(rendered, expected)
    assert not rendered.requires_grad
    assert field.evaluate(torch.zeros(0, 2)).shape == (0, 1)
    with pytest.raises(UsageError, match="0 x 7"):
        field.render(0, 7)
