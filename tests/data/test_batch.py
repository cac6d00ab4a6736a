from __future__ import annotations

from collections import OrderedDict, UserDict, defaultdict, namedtuple
from dataclasses import dataclass, field
from types import MappingProxyType

import pytest
import torch

from treadle.data.batch import Padded, batch_elements, collate, cut, tensors_of, to_device
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


class Encoding(UserDict):
    """As Hugging Face's BatchEncoding is: a mapping with attributes of its own that moves in place."""

    def __init__(self, data, encodings=None):
        super().__init__(data)
        self.encodings = encodings

    def to(self, device):
        self.data = {key: value.to(device) for key, value in self.data.items()}
        return self


@dataclass
class Sample:
    x: torch.Tensor
    name: str
    nested: dict[str, torch.Tensor] = field(default_factory=dict)
    made: int = field(init=False, default=0)

    def __post_init__(self):
        self.made += 1
        assert self.made == 1


@dataclass(frozen=True, slots=True)
class Frozen:
    x: torch.Tensor


class Several(list):
    note = "kept"


@pytest.mark.parametrize(
    "batch",
    [
        Encoding({"ids": torch.ones(2, 3)}, encodings="fast"),
        UserDict({"ids": torch.ones(2)}),
        OrderedDict(a=torch.ones(2)),
        defaultdict(list, a=torch.ones(2)),
        MappingProxyType({"a": torch.ones(2)}),
        Several([torch.ones(2)]),
        Pair(torch.ones(2), torch.ones(2)),
        torch.ones(2, 3).max(0),
        Sample(torch.ones(2), "first", {"mask": torch.ones(2)}),
        Frozen(torch.ones(2)),
    ],
    ids=lambda batch: type(batch).__name__,
)
def test_a_batch_stays_what_it_is_on_every_device(batch) -> None:
    for container in (batch, {"inner": batch}, [batch]):
        moved = to_device(container, "meta")
        inner = moved if container is batch else moved["inner"] if isinstance(container, dict) else moved[0]
        assert type(inner) is type(batch)
        assert {tensor.device.type for tensor in tensors_of(inner)} == {"meta"}
        assert {tensor.device.type for tensor in tensors_of(batch)} == {"cpu"}, "the one given is not touched"


def test_what_a_batch_holds_besides_its_tensors_comes_along() -> None:
    assert to_device(Encoding({"ids": torch.ones(2)}, encodings="fast"), "meta").encodings == "fast"
    sample = to_device(Sample(torch.ones(2), "first", {"mask": torch.ones(2)}), "meta")
    assert (sample.name, sample.made, sample.nested["mask"].device.type) == ("first", 1, "meta")
    assert to_device(defaultdict(list, a=torch.ones(1)), "meta")["unknown"] == []


def test_an_object_whose_to_gives_nothing_back_is_the_batch_itself() -> None:
    class InPlace:
        def __init__(self):
            self.x = torch.ones(2)

        def to(self, device):
            self.x = self.x.to(device)

    moved = to_device(InPlace(), "meta")
    assert moved.x.device.type == "meta"


def test_elements_and_parts_of_such_batches() -> None:
    batch = Sample(torch.arange(4.0), "first", {"mask": torch.ones(4)})
    assert batch_elements(batch) == 4
    part = cut(batch, 4, slice(1, 3))
    assert part.x.tolist() == [1, 2] and len(part.nested["mask"]) == 2 and part.name == "first"
    encoding = cut(Encoding({"ids": torch.ones(4, 2), "names": ["a", "b", "c", "d"]}, "fast"), 4, slice(0, 2))
    assert encoding["names"] == ["a", "b"] and len(encoding["ids"]) == 2 and encoding.encodings == "fast"


def test_samples_that_are_dataclasses_or_mappings_of_a_class_join_as_what_they_are() -> None:
    joined = collate([Frozen(torch.zeros(3)), Frozen(torch.ones(3))])
    assert type(joined) is Frozen and joined.x.shape == (2, 3)
    encodings = collate([Encoding({"ids": torch.ones(3)}), Encoding({"ids": torch.ones(3)})])
    assert type(encodings) is Encoding and encodings["ids"].shape == (2, 3)
