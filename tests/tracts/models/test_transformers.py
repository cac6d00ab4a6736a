from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from treadle.errors import UsageError
from treadle.tracts.models.attention import Attention, Layer, sinusoids
from treadle.tracts.models.settings import ModelSettings, build_model


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("decoder", [False, True])
def test_layers_are_torchs(norm_first: bool, activation: Any, decoder: bool) -> None:
    torch.manual_seed(0)
    ours = Layer(8, 2, 6, 0.0, activation=activation, norm_first=norm_first, relational=False, decoder=decoder)
    kind: Any = nn.TransformerDecoderLayer if decoder else nn.TransformerEncoderLayer
    theirs = kind(8, 2, 6, 0.0, activation, norm_first=norm_first, batch_first=True)
    pairs = [(ours.own, theirs.self_attn)] + ([(ours.other, theirs.multihead_attn)] if decoder else [])
    for one, other in pairs:
        assert one is not None
        other.in_proj_weight = nn.Parameter(torch.cat([one.queries.weight, one.memory.weight]))
        other.in_proj_bias = nn.Parameter(torch.cat([one.queries.bias, one.memory.bias]))
        other.out_proj = one.out
    theirs.linear1, theirs.linear2 = ours.each[0], ours.each[3]
    for number, norm in enumerate(ours.norms, 1):
        nn.init.uniform_(norm.weight)
        setattr(theirs, f"norm{number}", norm)
    points, encoded = torch.randn(2, 3, 5, 8)
    later = torch.ones(5, 5, dtype=torch.bool).triu(1)
    masks = {"tgt_mask": later, "memory_mask": later} if decoder else {"src_mask": later}
    wanted = theirs(points, *([encoded] if decoder else []), **masks)
    assert torch.allclose(ours(points, encoded, None)[0], wanted, atol=1e-6)


def test_positions_are_sines_and_cosines() -> None:
    found = sinusoids(torch.tensor([0, 3]), 5)
    rates = [1, 10000 ** (-2 / 5), 10000 ** (-4 / 5)]
    wanted = [f(torch.tensor(3 * rate)) for rate in rates for f in (torch.sin, torch.cos)][:5]
    assert found[0].tolist() == [0, 1, 0, 1, 0] and torch.allclose(found[1], torch.stack(wanted))


def test_relational_scores_depend_on_the_distance() -> None:
    """Written out by loops: what a learnt layer makes of the distance is added to each key."""
    torch.manual_seed(0)
    attention = Attention(6, 2, 0.0, relational=True)
    assert attention.distances is not None
    points = torch.randn(1, 4, 6)
    memory = attention.remember(points, None)
    found, queries, told = (
        attention(points, memory),
        attention.queries(points)[0],
        attention.distances(sinusoids(torch.arange(4), 6)),
    )
    rows = []
    for i in range(4):
        heads = []
        for head in range(2):
            part = slice(3 * head, 3 * head + 3)
            scores = [queries[i, part] @ (memory[0, 0, head, j] + told[i - j, part]) / 3**0.5 for j in range(i + 1)]
            heads.append(torch.stack(scores).softmax(0) @ memory[1, 0, head, : i + 1])
        rows.append(torch.cat(heads))
    assert torch.allclose(found[0], attention.out(torch.stack(rows)), atol=1e-6)


@torch.no_grad()
def test_places_are_told_one_way_or_the_other(lines: Any) -> None:
    """The same features all along: only its place can tell a point from another."""
    features, previous, offsets = lines([6])
    features[:] = features[0]
    for positions in ("sinusoidal", "relational"):
        torch.manual_seed(0)
        model = build_model(ModelSettings(model="tts", positions=positions), 7)  # type: ignore[arg-type]
        said = model(features, previous, offsets)
        told_apart = float((said[5] - said[1]).abs().max()) > 1e-4
        assert told_apart == (positions == "sinusoidal")  # of equal values distances make no difference


@pytest.mark.parametrize("sos", ["label", "class"])
@pytest.mark.parametrize("kind", ["tto", "ttst"])
def test_the_start_of_a_line_is_told(kind: Any, sos: Any, lines: Any) -> None:
    """A first point says what it says whatever is given as the step that led there; the next ones see theirs."""
    torch.manual_seed(0)
    model = build_model(ModelSettings(model=kind, sos=sos, sos_classes=42), 7)
    features, previous, offsets = lines([3, 2])
    other = previous.clone()
    other[0], other[1] = 1, -previous[1]
    before, after = model(features, previous, offsets), model(features, other, offsets)
    assert torch.equal(before[0], after[0]) and not torch.allclose(before[1], after[1], atol=1e-4)


def test_source_alone_does_not_see_directions(lines: Any) -> None:
    model = build_model(ModelSettings(model="tts"), 7)
    features, previous, offsets = lines([3, 2])
    assert torch.equal(model(features, previous, offsets), model(features, -previous, offsets))


def test_widths_and_layers() -> None:
    assert build_model(ModelSettings(model="ttst", embedding_size=20, target_size=12), 7).width == 32
    model = build_model(ModelSettings(model="tto", layers=3, embedding="none", heads=2), 8)
    assert model.width == 8 and sum(isinstance(part, Layer) for part in model.modules()) == 6
    assert sum(part.other is not None for part in model.modules() if isinstance(part, Layer)) == 3


@pytest.mark.parametrize(
    ("inputs", "given", "said"),
    [
        (
            7,
            {"model": "tto", "embedding_size": 30},
            r"a transformer 30 wide \(see embedding_size\) cannot have 4 heads",
        ),
        (0, {"model": "tts"}, "the transformer 'tts' needs features: give it a volume"),
    ],
)
def test_what_does_not_fit_is_refused(inputs: int, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        build_model(ModelSettings(**given), inputs)
