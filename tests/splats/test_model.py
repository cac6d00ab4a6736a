from __future__ import annotations

import numpy as np
import pytest
import torch

from treadle.engine.rows import RowEdit
from treadle.errors import UsageError
from treadle.splats.model import FIELDS, Splats


def test_its_parameters_are_the_clouds_fields(cloud) -> None:
    cloud.extra["label"] = torch.rand(len(cloud), 2)
    model = Splats(cloud)
    assert list(dict(model.named_parameters())) == [*FIELDS, "extra.label"] == list(model.rows)
    assert all(torch.equal(getattr(model, name), getattr(cloud, name)) for name in FIELDS)
    assert all(getattr(model.cloud(), name) is getattr(model, name) for name in FIELDS)
    assert model.cloud().extra["label"] is model.rows["extra.label"]
    cloud.means += 1
    assert not torch.equal(model.means, cloud.means), "it has memory of its own"


def test_rows_go_together_and_the_module_keeps_its_parameters(cloud) -> None:
    model = Splats(cloud)
    before = dict(model.named_parameters())
    with RowEdit(model.rows) as edit:
        edit.keep(torch.arange(5))
    assert len(model) == 5 and all(len(rows) == 5 for rows in model.rows.values())
    assert all(rows is before[name] for name, rows in model.named_parameters())


def test_it_is_made_again_from_its_weights(cloud) -> None:
    cloud.extra["label"] = torch.rand(len(cloud), 2)
    to_input = np.diag([2.0, 2.0, 2.0, 1.0])
    model = Splats(cloud, to_input)
    again = Splats.from_weights(dict(model.state_dict()), antialiased=True)
    assert again.antialiased and again.to_input.dtype == torch.float64
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    with pytest.raises(UsageError, match="not the weights of splats: 'quaternions' is not among them"):
        Splats.from_weights({"means": torch.zeros(3, 3)})
