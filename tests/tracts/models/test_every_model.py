"""What every model that follows lines holds to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from treadle.tracts.models.model import LineModel
from treadle.tracts.models.settings import ModelSettings, build_model

CASES: dict[str, dict[str, Any]] = {
    "lstm": {"model": "lstm", "previous_directions": 3, "skip_connections": True, "layer_normalization": True},
    "gru": {"model": "gru", "embedding": "nn", "previous_embedding": "nn", "previous_size": 5},
    "mlp": {"model": "mlp", "previous_directions": 2, "normalize_previous": False},
    "tts": {"model": "tts", "norm_first": True},
    "tts-relational": {"model": "tts", "positions": "relational", "heads": 2},
    "tto": {"model": "tto", "activation": "gelu", "decoder_layers": 1},
    "tto-relational": {"model": "tto", "positions": "relational", "norm_first": True, "sos": "class"},
    "ttst": {"model": "ttst"},
    "ttst-class": {"model": "ttst", "sos": "class", "normalize_previous": False, "positions": "relational"},
}
LENGTHS = [4, 1, 9, 9, 6, 2, 12]


def make(case: str) -> LineModel:
    torch.manual_seed(5)
    small = {"sizes": [16, 12], "embedding_size": 12, "target_size": 4, "sos_classes": 42}
    return build_model(ModelSettings(**small | CASES[case]), 7).eval()


def step_by_step(model: LineModel, features: Tensor, previous: Tensor, offsets: Tensor) -> Tensor:
    """Point by point, as tracking does it: lines that have ended are put out, the others change places."""
    rows: dict[int, Tensor] = {}
    rng, going = torch.Generator().manual_seed(0), torch.arange(len(offsets) - 1)
    state, step = model.start(len(going)), 0
    while len(going):
        at = offsets[going] + step
        found, state = model.advance(state, features[at], previous[at])
        assert found.shape == (len(going), model.width)
        rows |= dict(zip(at.tolist(), found, strict=True))
        step += 1
        left = (offsets.diff()[going] > step).nonzero()[:, 0]
        left = left[torch.randperm(len(left), generator=rng)]
        going, state = going[left], model.keep(state, left)
    return torch.stack([rows[row] for row in range(len(features))])


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_point_by_point_is_as_whole_lines(case: str, lines: Any) -> None:
    model = make(case)
    whole = model(*lines(LENGTHS))
    assert float((step_by_step(model, *lines(LENGTHS)) - whole).abs().max()) <= 1e-5
    assert float(whole.std(0).min()) > 1e-3, "it says something"


@pytest.mark.parametrize("case", CASES)
def test_what_comes_later_changes_nothing_before(case: str, lines: Any) -> None:
    model, (features, previous, offsets) = make(case), lines(LENGTHS)
    features.requires_grad_()
    previous.requires_grad_("class" not in str(CASES[case].get("sos")))
    outputs = model(features, previous, offsets)
    row = int(offsets[3]) + 4
    (outputs[row] * torch.linspace(-1, 2, model.width)).sum().backward()
    for given in (features.grad, previous.grad):
        if given is not None:
            seen = given.abs().sum(1).nonzero()[:, 0]
            assert all(int(offsets[3]) <= each <= row for each in seen.tolist()), "nothing later, and no other line"
    assert features.grad is not None and features.grad[row].abs().sum() > 0
    changed, turned = features.detach().clone(), previous.detach().clone()
    changed[row + 1 : offsets[4]] += 3
    turned[row + 1 : offsets[4]] -= 2
    with torch.no_grad():
        after = model(changed, turned, offsets)
    same = torch.ones(len(after), dtype=torch.bool)
    same[row + 1 : offsets[4]] = False
    assert torch.allclose(after[same], outputs[same], atol=1e-6)
    assert not torch.allclose(after[row + 1], outputs[row + 1], atol=1e-3)


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_a_line_does_not_depend_on_those_beside_it(case: str, lines: Any) -> None:
    model, (features, previous, offsets) = make(case), lines(LENGTHS)
    whole = model(features, previous, offsets)
    for line in (1, 4):
        part = slice(int(offsets[line]), int(offsets[line + 1]))
        alone = model(features[part], previous[part], torch.tensor([0, LENGTHS[line]]))
        assert torch.allclose(alone, whole[part], atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_empty_lines_and_no_lines_at_all(case: str, lines: Any) -> None:
    model = make(case)
    features, previous, offsets = lines([3, 0, 2])
    assert torch.allclose(model(features, previous, offsets), model(features, previous, offsets[[0, 1, 3]]), atol=1e-6)
    for offsets in (torch.zeros(1, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)):
        assert model(torch.zeros(0, 7), torch.zeros(0, 3), offsets).shape == (0, model.width)


@pytest.mark.parametrize("case", CASES)
def test_every_weight_learns(case: str, lines: Any) -> None:
    model = make(case).train()
    model(*lines(LENGTHS)).square().sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and torch.isfinite(weight.grad).all(), name
        assert weight.grad.abs().sum() > 0, name


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_the_past_matters(case: str, lines: Any) -> None:
    """A model with a memory says something else after another beginning."""
    model, (features, previous, offsets) = make(case), lines([6])
    other, turned = features.clone(), previous.clone()
    other[0], turned[1] = -features[0], -previous[1]
    differ = (model(features, previous, offsets) - model(other, turned, offsets)).abs().amax(1)
    assert bool(differ[5] > 1e-6) == (case != "mlp")
    assert differ[1] > 1e-4
