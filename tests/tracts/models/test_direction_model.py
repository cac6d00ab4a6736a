from __future__ import annotations

from typing import Any

import pytest
import torch

from treadle.tracts.batch import LineBatch
from treadle.tracts.getters.settings import GETTERS, GetterSettings
from treadle.tracts.models.direction_model import DirectionModel, build_direction_model
from treadle.tracts.models.settings import ModelSettings


def make(getter: Any = "cosine", ends: bool = False, **given: Any) -> DirectionModel:
    torch.manual_seed(0)
    model = ModelSettings(**{"sizes": [8], "embedding_size": 8, "sos_classes": 12} | given)
    return build_direction_model(model, GetterSettings(getter=getter, ends=ends, classes=42), 7)


def test_an_mlp_is_residual_unless_said_otherwise_and_others_are_not() -> None:
    assert make(model="mlp").residual and not make(model="mlp", residual=False).residual
    assert not make(model="lstm").residual and make(model="tts", residual=True).residual


@pytest.mark.parametrize("kind", ["lstm", "mlp", "tts"])
def test_a_residual_model_that_says_nothing_copies_the_previous_direction(kind: str, lines: Any) -> None:
    model, (features, previous, offsets) = make(model=kind, residual=True), lines([5, 3])
    for weight in model.getter.parameters():
        torch.nn.init.zeros_(weight)
    found = model.getter.direction(model(features, previous, offsets))
    moving = previous.any(1)
    assert torch.allclose(found[moving], torch.nn.functional.normalize(previous[moving], dim=1), atol=1e-6)
    assert not found[~moving].any()


@pytest.mark.parametrize("residual", [False, True])
@torch.no_grad()
def test_point_by_point_says_the_same_parameters(residual: bool, lines: Any) -> None:
    model, (features, previous, offsets) = make(residual=residual), lines([4, 4])
    whole, state = model(features, previous, offsets), model.start(2)
    for step in range(4):
        order = torch.tensor([1, 0]) if step % 2 else torch.tensor([0, 1])
        found, state = model.advance(state, features[offsets[order] + step], previous[offsets[order] + step])
        assert torch.allclose(found, whole[offsets[order] + step], atol=1e-6)
        state = model.keep(state, torch.tensor([1, 0]))


@pytest.mark.parametrize("kind", ["lstm", "gru", "tto", "tts", "ttst", "mlp"])
@pytest.mark.parametrize("getter", GETTERS)
def test_every_model_trains_with_every_getter(kind: str, getter: str, lines: Any) -> None:
    model, (features, previous, offsets) = make(getter, True, model=kind), lines([5, 1, 8])
    last = torch.zeros(14, dtype=torch.bool)
    last[offsets[1:] - 1] = True
    nothing = torch.zeros(3, dtype=torch.int64)
    targets = (previous.roll(-1, 0) + 0.1).masked_fill(last[:, None], 0)
    batch = LineBatch(features, previous, previous, targets, offsets, last, nothing, nothing)
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=1e-2), []
    for _ in range(12):
        error, end = model.loss(batch)
        total = error.mean() if end is None else error.mean() + end.mean()
        assert (end is None) == ("sphere" in getter) and len(error) == (14 if end is None else 11)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(float(total.detach()))
    assert losses[-1] < losses[0]
