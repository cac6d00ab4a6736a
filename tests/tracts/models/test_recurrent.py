"""Recurrent layers in stretches of time against torch's packed sequences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence

from treadle.errors import UsageError
from treadle.runs.environment import cpu_model
from treadle.tracts.models.model import LineModel
from treadle.tracts.models.settings import ModelSettings, build_model

LENGTHS = [1, 30, 7, 100, 1, 64, 64, 12, 45, 2, 88, 31, 17, 5, 70, 99]


def make(inputs: int = 7, **given: Any) -> LineModel:
    torch.manual_seed(1)
    return build_model(ModelSettings(**{"sizes": [12, 9]} | given), inputs)


def packed(model: Any, features: Tensor, previous: Tensor, offsets: Tensor) -> Tensor:
    """dwi_ml's StackedRNN, on packed sequences, with the layers of `model`."""
    seen = torch.cat([model.embed(features), model.previous(previous, offsets)], dim=1)
    lengths = offsets.diff().tolist()
    inputs = pack_sequence(list(seen.split(lengths)), enforce_sorted=False)
    marks: Any = inputs.batch_sizes, inputs.sorted_indices, inputs.unsorted_indices
    current, said = inputs, []
    for index, (layer, norm) in enumerate(zip(model.layers, model.norms, strict=True)):
        values = norm(layer(current)[0].data)
        last = index == len(model.layers) - 1
        values = values if last else values.relu()
        said.append(values)
        into = torch.cat([values, inputs.data], dim=1) if model.skip_connections else values
        current = PackedSequence(into, *marks)
    data = torch.cat([*said, inputs.data], dim=1) if model.skip_connections else said[-1]
    return torch.cat(unpack_sequence(PackedSequence(data, *marks)))


def both(model: LineModel, given: tuple[Tensor, Tensor, Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Outputs and gradients, of weights and features, of ours and of the packed run."""
    results = []
    for run in (model, lambda *rest: packed(model, *rest)):
        features, previous, offsets = given
        features = features.clone().requires_grad_()
        model.zero_grad()
        outputs = run(features, previous, offsets)
        weights = torch.linspace(-1, 2, outputs.numel(), dtype=outputs.dtype).view_as(outputs)
        (outputs * weights).sum().backward()
        gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
        assert features.grad is not None and len(gradients) == len(list(model.parameters()))
        results.append((outputs.detach(), *gradients, features.grad))
    return results[0], results[1]


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("extras", [False, True])
def test_double_precision_equals_packed_sequences(lines: Any, kind: str, extras: bool) -> None:
    model = make(model=kind, skip_connections=extras, layer_normalization=extras, previous_directions=2).double()
    ours, theirs = both(model, lines(LENGTHS, dtype=torch.float64))
    for one, other in zip(ours, theirs, strict=True):
        assert float((one - other).abs().max()) <= 1e-10 * max(1.0, float(other.abs().max()))


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("skips", [False, True])
def test_single_precision_equals_packed_sequences(lines: Any, kind: str, skips: bool) -> None:
    model = make(20, model=kind, sizes=[40, 30, 20], skip_connections=skips)
    ours, theirs = both(model, lines(LENGTHS, 20))
    assert float((ours[0] - theirs[0]).abs().max()) <= 1e-6
    for one, other in zip(ours[1:], theirs[1:], strict=True):
        assert float((one - other).abs().max()) <= 1e-5 * float(other.abs().max())


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.sampled_from(["lstm", "gru"]))
def test_any_lengths_equal_packed_sequences(lengths: list[int], kind: str) -> None:
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    rng = torch.Generator().manual_seed(sum(lengths))
    features = torch.randn(int(offsets[-1]), 4, generator=rng, dtype=torch.float64)
    model = make(4, model=kind, previous_directions=0, sizes=[5]).double()
    ours, theirs = both(model, (features, features[:, :3], offsets))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_the_number_of_threads_changes_no_bit(lines: Any, kind: str) -> None:
    model, given, found = make(50, model=kind, sizes=[64, 64]), lines(LENGTHS * 3, 50), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(model(*given))
    finally:
        torch.set_num_threads(before)
    if kind == "gru" and "Intel" not in cpu_model():  # a thread with three lines: MKL rounds otherwise than for many
        assert torch.allclose(found[0], found[1], rtol=0, atol=1e-6)
    else:
        assert torch.equal(found[0], found[1])


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_dropout_is_drawn_between_layers_in_training_alone(lines: Any, kind: str) -> None:
    model, given = make(model=kind, dropout=0.5), lines([5, 9, 1])
    torch.manual_seed(3)
    first = model(*given)
    assert not torch.equal(first, model(*given))
    torch.manual_seed(3)
    assert torch.equal(first, model(*given)), "by torch's generator"
    model.eval()
    assert torch.equal(model(*given), model(*given))


def test_layers_are_as_wide_as_asked_for() -> None:
    assert make(model="gru", sizes=[8, 4]).width == 4
    with_skips = make(model="lstm", sizes=[8, 4], skip_connections=True, previous_directions=2)
    assert with_skips.width == 8 + 4 + 7 + 6
    layers = [layer for layer in with_skips.modules() if isinstance(layer, nn.LSTM)]
    assert [layer.input_size for layer in layers] == [13, 8 + 13]


@pytest.mark.parametrize("kind", ["lstm", "gru", "mlp"])
def test_a_model_that_sees_nothing_is_refused(kind: str) -> None:
    with pytest.raises(UsageError, match=f"the {kind} sees nothing: give it a volume, or previous_directions"):
        make(0, model=kind, previous_directions=0)
    assert make(0, model=kind, previous_directions=1).inputs == 0
