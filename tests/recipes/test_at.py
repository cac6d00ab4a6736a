"""Every trainer that comes with Treadle lets one say which model of a run is loaded and exported."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch

from treadle.errors import UsageError
from treadle.fields.image_trainer import ImageTrainer
from treadle.recipes.registry import trainer
from treadle.runs.names import comes_with_treadle, is_file, registered

OLD = Path(__file__).parents[1] / "fixtures" / "runs_of_0.1.0"
NAMES = sorted(name for name, point in registered().items() if comes_with_treadle(point) and not is_file(point))

ADVERSARIAL = ("pix2pix", "cyclegan", "colorization")


@pytest.mark.parametrize("name", NAMES)
def test_each_trainer_takes_at_where_it_loads_and_exports(name: str, tmp_path: Path) -> None:
    kind = trainer(name)
    assert kind.preferred_model == ("final" if name in ADVERSARIAL else "best")
    assert inspect.signature(kind.load_model).parameters["at"].default is None
    if name in ADVERSARIAL:
        assert inspect.signature(kind.exportable).parameters["at"].default is None
    for exporter in kind.exporters().values():
        assert "at" in {option.name for option in exporter.options}
    with pytest.raises(UsageError, match="has no final model yet"):
        kind.load_model(tmp_path, at="final")
    with pytest.raises(UsageError, match="keeps no model of step 5: it keeps none yet"):
        kind.load_model(tmp_path, at=5)


def test_a_field_of_an_old_run_is_read_out_of_its_checkpoint() -> None:
    run = OLD / "image" / "v001"
    places = torch.rand(5, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    best, final = (ImageTrainer.load_model(run, at=at)(places) for at in (None, "final"))
    assert best.shape == final.shape and not torch.equal(best, final)
