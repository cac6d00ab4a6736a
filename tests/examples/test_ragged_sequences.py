from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

FILE = Path(__file__).parents[2] / "examples" / "ragged_sequences.py"


@pytest.fixture(scope="module")
def example() -> Any:
    spec = importlib.util.spec_from_file_location("ragged_sequences", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_short() -> None:
    assert len(FILE.read_text().splitlines()) <= 80


def test_it_learns_to_do_better_than_repeating(example: Any) -> None:
    metrics = example.main(max_epochs=5).validation_metrics
    assert metrics["loss"] < 0.25 * metrics["repeating"]


def test_its_metrics_are_weighted_by_points(example: Any) -> None:
    trainer = example.main(max_epochs=1)
    whole = [1 - (s[:-1] * s[1:]).sum(1) for s in example.curves(200, seed=2)]
    assert trainer.validation_metrics["repeating"] == pytest.approx(torch.cat(whole).mean().item(), rel=1e-4)
    assert trainer.feed.batches > 15 and len({len(b) for b in trainer.feed.batching.epoch(0, 0)}) > 5
