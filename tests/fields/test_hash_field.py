from __future__ import annotations

import pytest
import torch

from treadle.errors import UsageError
from treadle.fields import hash_field
from treadle.fields.decoder import decoded
from treadle.fields.grids.dense import DenseGrid
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


def test_a_fused_field_is_its_grid_under_its_decoder():
    torch.manual_seed(0)
    points = torch.rand(300, 2) * 2.2 - 1.1
    for grid in (HashEncoding(2, levels=3, log2_size=8, n_min=4, n_max=20), DenseGrid(2, levels=3, n_min=4, n_max=20)):
        for output in ("sigmoid", "none"):
            field = HashField(grid, 3, hidden=8, layers=1, output=output)
            with torch.no_grad():
                grid.table.uniform_(-1, 1)
            for lod in (None, 0, 1, 2):
                ours, theirs = decoded(grid, field.decoder, points, lod), field.decoder(grid(points, lod))
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
            with pytest.raises(UsageError, match="lod is 3: expected 0 to 2"):
                decoded(grid, field.decoder, points, 3)


def test_a_field_is_evaluated_where_it_was_trained_in_another_precision():
    field = small().double()
    assert field(torch.rand(5, 2)).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert small()(torch.rand(5, 2)).dtype == torch.bfloat16


def test_a_state_of_0_1_0_keeps_its_cells_and_one_of_today_its_own():
    field = small()
    with torch.no_grad():
        field.grid.table.uniform_(-1, 1)
    today = field.state_dict()
    points = torch.rand(100, 2) * 2 - 1
    expected = field(points)
    old = {name: value for name, value in today.items() if name != "grid.to_border"}
    assert len(old) == len(today) - 1
    field.load_state_dict(old)
    assert field.grid.layout.flat_border and not torch.equal(field(points), expected)
    assert field.state_dict().keys() == old.keys()
    again = small()
    again.load_state_dict(field.state_dict())
    assert torch.equal(again(points), field(points))
    again.load_state_dict(today)
    assert not again.grid.layout.flat_border and torch.equal(again(points), expected)
