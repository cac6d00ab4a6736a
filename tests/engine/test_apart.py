"""What observers are given is theirs, and what they set is undone."""

from __future__ import annotations

from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from treadle.data.batch import Padded
from treadle.engine.apart import Gift, apart, own
from treadle.engine.events import Record

Named = namedtuple("Named", ["x", "y"])


@dataclass
class Sample:
    x: Any
    extra: dict[str, Any] = field(default_factory=dict)


class Custom:
    """A batch of somebody's own class."""

    def __init__(self, x: Any) -> None:
        self.x = x


class Stubborn(Custom):
    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("there is one of me")


def tensors(thing: Any) -> list[Any]:
    """The tensors and arrays anywhere in `thing`."""
    if isinstance(thing, torch.Tensor | np.ndarray):
        return [thing]
    if isinstance(thing, Record):
        return tensors(thing.value)
    inner = thing.values() if hasattr(thing, "values") and not isinstance(thing, Padded) else thing
    if isinstance(thing, Sample | Custom):
        inner = vars(thing).values()
    return [found for item in inner for found in tensors(item)] if not isinstance(thing, str | int | float) else []


@pytest.mark.parametrize(
    "thing",
    [
        torch.ones(2, 3).T,
        torch.ones(2, requires_grad=True) * 2,
        torch.eye(2).to_sparse(),
        np.ones(3),
        (torch.ones(2), [torch.ones(1), "text"]),
        Named(torch.ones(2), {"deep": [np.ones(2)]}),
        Padded((torch.ones(1, 2),), torch.tensor([2]), torch.ones(1, 2, dtype=torch.bool), 2),
        OrderedDict(a=torch.ones(2), b={"c": torch.ones(3)}),
        UserDict(a=torch.ones(2)),
        Sample(torch.ones(2), {"y": torch.ones(2)}),
        Custom(torch.ones(2)),
        Record("image", "x", np.ones((2, 2)), 1, 0),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_a_copy_is_of_the_same_kind_and_shares_nothing(thing: Any) -> None:
    copy = own(thing)
    assert type(copy) is type(thing) and copy is not thing
    pairs = list(zip(tensors(thing), tensors(copy), strict=True))
    assert pairs
    for before, after in pairs:
        if isinstance(before, torch.Tensor):
            assert torch.equal(before.to_dense(), after.to_dense()) and not after.requires_grad
            if not before.is_sparse:
                assert before.stride() == after.stride() and before.data_ptr() != after.data_ptr()
        else:
            np.testing.assert_array_equal(before, after)
            after[...] = 7
            assert (before != 7).all()


def test_what_is_to_be_filled_or_cannot_be_copied_is_handed_on() -> None:
    gift, stubborn = Gift(), Stubborn(torch.ones(1))
    assert own(gift) is gift and own(stubborn) is stubborn
    assert own([stubborn])[0] is stubborn


SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "gradients": (torch.is_grad_enabled, lambda: torch.set_grad_enabled(False)),
    "dtype": (torch.get_default_dtype, lambda: torch.set_default_dtype(torch.float64)),
    "threads": (torch.get_num_threads, lambda: torch.set_num_threads(torch.get_num_threads() + 1)),
    "determinism": (
        torch.get_deterministic_debug_mode,
        lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    ),
    "precision": (torch.get_float32_matmul_precision, lambda: torch.set_float32_matmul_precision("medium")),
    "anomaly": (torch.is_anomaly_enabled, lambda: torch.autograd.set_detect_anomaly(True)),
    "cudnn": (lambda: torch.backends.cudnn.benchmark, lambda: setattr(torch.backends.cudnn, "benchmark", True)),
    "device": (lambda: torch.zeros(1).device, lambda: torch.set_default_device("meta")),
    "numpy": (np.geterr, lambda: np.seterr(all="raise")),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_back_afterwards_also_after_an_error(name: str) -> None:
    read, change = SETTINGS[name]
    before = read()
    with pytest.raises(ZeroDivisionError), apart():
        change()
        assert read() != before
        raise ZeroDivisionError
    assert read() == before


def test_streams_are_back_afterwards() -> None:
    before = torch.get_rng_state()
    with apart():
        torch.manual_seed(3), torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
