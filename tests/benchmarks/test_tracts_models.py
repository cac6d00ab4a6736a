"""dwi_ml's loop, written out, computes what ours computes: else the benchmark compares nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from treadle.tracts.feeds.settings import LinesSettings
from treadle.tracts.feeds.tract_feed import TractFeed
from treadle.tracts.getters.settings import GetterSettings
from treadle.tracts.models.direction_model import build_direction_model
from treadle.tracts.models.settings import ModelSettings

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import tracts_models

    return tracts_models


def test_both_loops_see_the_same_and_say_the_same(bench: Any) -> None:
    torch.manual_seed(0)
    subject = bench.subject("a", 12, 5, 0)
    model = build_direction_model(ModelSettings(sizes=[8, 6]), GetterSettings(), 5)
    lines = subject.streamlines("lines")
    source = bench.Source(torch.from_numpy(subject.volume("volume")), [lines[k] for k in range(12)])
    loop = bench.Loop(model, scans=False)
    (batch,) = TractFeed([subject], LinesSettings(), training=False, ends=False).iterate(0)
    from _dwi_ml_loop import trilinear

    assert torch.allclose(trilinear(source.volume, batch.points), batch.features, atol=1e-5)
    loss, count = loop.batch(source, batch.lines.tolist())
    assert count == len(batch.features) and loss.item() == pytest.approx(model.loss(batch)[0].mean().item(), abs=1e-6)
    first = loop.epoch(source, [batch.lines.tolist()] * 8, learns=True)
    assert loop.epoch(source, [batch.lines.tolist()], learns=False) < first


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_packed_and_in_stretches_are_compared_once_they_agree(bench: Any, kind: str, monkeypatch: Any) -> None:
    assert min(bench.compare(kind, 6, 1)) > 0
    plain = bench.packed
    monkeypatch.setattr(bench, "packed", lambda *given: plain(*given) * (1 + 1e-4))
    with pytest.raises(AssertionError, match="other outputs"):
        bench.compare(kind, 6, 1)
