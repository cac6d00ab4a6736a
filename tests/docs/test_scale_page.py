"""What docs/more_than_one_process.md says of many GPUs is what comes of our networks and the formulas that it names."""

from __future__ import annotations

import importlib
import itertools
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from treadle.engine.together import GradientSum
from treadle.parallel import World

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    sys.path.insert(0, str(DOCS))
    try:
        return importlib.import_module("generate_scale")
    finally:
        sys.path.remove(str(DOCS))


def test_the_page_is_up_to_date(scale: ModuleType) -> None:
    text = (DOCS / "more_than_one_process.md").read_text()
    assert scale.page(text) == text, "run docs/generate_scale.py"
    assert "| 3DGS, 1M splats |" in text


class Counting(World):
    """Counts the bytes that are sent."""

    size = 2

    def __init__(self) -> None:
        self.bytes, self.messages = 0, 0

    def sum(self, tensors: list[Tensor]) -> None:  # type: ignore[override]
        self.messages += len(tensors)
        self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize("widths", [(8, 8, 2), (256, 768, 768, 768, 256)])
def test_the_bytes_are_those_that_an_update_sends(scale: ModuleType, widths: list[int]) -> None:
    net = nn.Sequential(*(nn.Linear(a, b) for a, b in itertools.pairwise(widths)))
    net(torch.ones(1, widths[0])).sum().backward()
    world = Counting()
    GradientSum(world, lambda: False).add_up(list(net.parameters()), 1.0)
    assert (world.bytes, world.messages) == (scale.message(list(net.parameters())), 1)


def test_rings_and_storeys(scale: ModuleType) -> None:
    assert scale.ring(80, 2) == 80 and scale.ring(80, 8) == 140
    assert scale.hierarchical(80, 1, 14, 1) == 10 and scale.hierarchical(80, 2, 14, 8) == 20
    assert [scale.time(seconds) for seconds in (0.0123, 0.00123)] == ["12", "1.2"]
