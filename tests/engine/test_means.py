"""Means of scalars: on the CPU and off it, of any dtype, in the order they were added."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from treadle.engine.means import Means
from treadle.errors import UsageError


class OnDevice(Tensor):
    """A scalar that says it is not on the CPU."""

    is_cpu = False  # type: ignore[assignment]


def off_cpu(value: float, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(value, dtype=dtype).as_subclass(OnDevice)


def test_values_that_waited_are_summed_as_exactly_as_those_that_did_not() -> None:
    values = [0.1, 1e6, -3.7, 1e-3]
    waiting, at_once = Means(), Means()
    for value in values:
        waiting.add({"a": off_cpu(value), "b": off_cpu(value, torch.float64), "c": off_cpu(value, torch.bfloat16)}, 3.0)
        at_once.add(
            {"a": torch.tensor(value), "b": value, "c": torch.tensor(value, dtype=torch.bfloat16)},
            3.0,
        )
    assert waiting.state_dict() == at_once.state_dict()
    assert waiting.result() == at_once.result()


def test_a_mean_goes_on_where_its_values_move_to_another_device() -> None:
    means = Means()
    means.add({"a": torch.tensor(1.0)}, 1.0)
    means.add({"a": off_cpu(2.0)}, 1.0)
    means.add({"a": 6.0}, 2.0)
    assert means.result() == {"a": 15.0 / 4.0}


def test_a_count_that_waits_beside_other_numbers_is_not_rounded_to_their_dtype() -> None:
    means = Means()
    means.add({"loss": off_cpu(0.5), "rays": off_cpu(2**24 + 1, torch.int64)}, 1.0)
    assert means.result() == {"loss": 0.5, "rays": 2.0**24 + 1}


def test_what_is_no_scalar_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"'a' has shape \(3,\)"):
        Means().add({"a": torch.ones(3)}, 1.0)
    with pytest.raises(UsageError, match="'a' is a str"):
        Means().add({"a": "x"}, 1.0)
