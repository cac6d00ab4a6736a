from __future__ import annotations

from collections import namedtuple

import pytest
import torch

from treadle.data.batch import Padded, batch_elements, collate, tensors_of, to_device
from treadle.errors import UsageError

Pair = namedtuple("Pair", "x y")


def test_to_device_keeps_structure_and_leaves_the_rest() -> None:
    batch = {"pair": Pair(torch.ones(2), [torch.ones(3), "name"]), "n": 3, "none": None}
    moved = to_device(batch, "meta")
    assert [t.device.type for t in tensors_of(moved)] == ["meta", "meta"]
    assert isinstance(moved["pair"], Pair) and moved["pair"].y[1] == "name" and moved["n"] == 3


def test_to_device_copies_nothing_that_is_there() -> None:
    x = torch.ones(2)
    assert to_device((x,), torch.device("cpu"))[0] is x


def test_to_device_asks_objects_that_can_move() -> None:
    packed = torch.nn.utils.rnn.pack_sequence([torch.ones(2), torch.ones(1)])
    assert to_device([packed], "meta")[0].data.device.type == "meta"


def test_elements() -> None:
    assert batch_elements(torch.ones(5, 2)) == 5
    assert batch_elements({"name": "a", "x": (torch.ones(4),)}) == 4
    assert batch_elements((torch.ones(3), torch.ones(9))) == 3
    assert batch_elements(torch.ones(())) == 1
    padded = Padded(torch.ones(2, 4), torch.tensor([4, 1]), torch.ones(2, 4, dtype=torch.bool), 5)
    assert batch_elements(padded) == 5
    with pytest.raises(UsageError, match="override elements"):
        batch_elements({"name": "a"})


def test_collate_says_what_to_do_about_different_shapes() -> None:
    with pytest.raises(UsageError, match="pad_collate"):
        collate([torch.ones(2), torch.ones(3)])
    with pytest.raises(UsageError, match="pad_collate"):
        collate([[1, 2], [1]])
