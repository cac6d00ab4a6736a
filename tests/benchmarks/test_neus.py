"""A distance field under the trainer and the tracer of radiance fields: it learns, and its gradients are watched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from treadle.cameras.procedural import procedural_capture

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import neus

    return neus


def test_photographs_pull_at_the_distance_and_at_its_sharpness(bench):
    settings = dict(bench.SETTINGS) | {"levels": 3, "log2_size": 10, "n_min": 4, "n_max": 16, "samples": 4000,
                                       "first_rays": 64, "occupancy": 16, "steps": 64, "max_steps": 12}  # fmt: skip
    trainer = bench.NeuSTrainer(data=procedural_capture(16, train=5, test=1), **settings)
    field = trainer.model.field
    assert isinstance(field, bench.SDFField) and set(trainer.objective.terms) == {"color", "eikonal"}
    before = trainer.validate()["psnr"], float(field.sharpness.detach()), field.grid.table.detach().clone()
    trainer.train()
    assert trainer.validation_metrics["psnr"] > before[0]
    assert float(field.sharpness.detach()) != before[1]
    assert not torch.equal(field.grid.table, before[2])
    assert trainer.metrics["eikonal"] >= 0
