"""Write the tables of "On paper" in docs/more_than_one_process.md: what messages cost on many GPUs.

    python docs/generate_scale.py

Parameters are those of Treadle's networks, made without memory; the bytes of a message are those that the engine lays
out for them. Times follow from formulas alone. The output is committed; a test compares it with this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from treadle.engine.together import HEAD
from treadle.fields.grids.hash import HashEncoding
from treadle.recipes.registry import load_recipe
from treadle.splats.cloud import Cloud
from treadle.splats.model import Splats
from treadle.tracts.models.settings import ModelSettings, build_model

PAGE = Path(__file__).parent / "more_than_one_process.md"
BEGIN, END = "<!-- on paper: written by docs/generate_scale.py -->", "<!-- end of the tables -->"

NVLINK, PCIE, ETHERNET, INFINIBAND = 300e9, 20e9, 2.5e9, 40e9
"""Bytes a second that a ring gets of NVLink 4, PCIe 4, 25 GbE and InfiniBand NDR (400 Gb/s): assumed, not measured."""
NODE = 8
"""GPUs of a machine."""
DIGEST, COPY = 0.65e-9, 0.1e-9
"""Seconds a byte for SHA-256, and for the copy that a checkpoint stalls for at most: measured on a CPU."""


@dataclass(frozen=True)
class Work:
    """A kind of work.

    Args:
        name: of it.
        networks: the parameters of each optimizer, which have no memory.
    """

    name: str
    networks: Sequence[Sequence[Tensor]]

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for some in self.networks for p in some)

    @property
    def message(self) -> int:
        """Bytes of an update of every optimizer, as the engine lays them out."""
        return sum(message(some) for some in self.networks)

    @property
    def state(self) -> int:
        """Bytes of weights and Adam's moments."""
        return 3 * 4 * self.parameters


def message(parameters: Sequence[Tensor]) -> int:
    """Bytes that the engine sends for an update of these parameters."""
    return 4 * (HEAD + len(parameters)) + sum(p.numel() * p.element_size() for p in parameters)


def works() -> list[Work]:
    """Those of the tables."""
    with torch.device("meta"):
        config = load_recipe("pix2pix-paper").config
        opponents = config.build_generator(), config.build_discriminator(config.in_channels + config.out_channels)
        lstm = build_model(ModelSettings(model="lstm", sizes=[500, 500]), 7 * 45)
        made: list[tuple[str, list[list[Tensor]]]] = [
            ("hash grid, 16 levels of 2^19", [list(HashEncoding(3, 16, 2, 19, 16, 2048).parameters())]),
            ("pix2pix, as in the paper", [list(each.parameters()) for each in opponents]),
            ("3DGS, 1M splats", [list(splats(10**6).parameters())]),
            ("3DGS, 3M splats", [list(splats(3 * 10**6).parameters())]),
            ("nnU-Net (not ours: 30M assumed)", [[nn.Parameter(torch.empty(30_000_000))]]),
            ("LSTM on streamlines", [list(lstm.parameters())]),
        ]
    return [Work(name, networks) for name, networks in made]


def splats(count: int) -> Splats:
    """Splats with harmonics of degree 3."""
    shapes = {"means": (3,), "quaternions": (4,), "log_scales": (3,), "logits": (), "dc": (3,), "rest": (15, 3)}
    return Splats(Cloud(**{name: torch.empty(count, *shape) for name, shape in shapes.items()}, extra={}))


def ring(size: float, ranks: int) -> float:
    """Bytes that each process of a ring sends to add up `size` bytes: 2 (W - 1) / W of them."""
    return 2 * (ranks - 1) / ranks * size


def hierarchical(size: float, nodes: int, within: float, between: float) -> float:
    """Seconds to add up `size` bytes over machines: in each, every GPU adds up a share of them; then rings of equal
    shares run between machines, which together have what the network of a machine gives; then the shares go round."""
    return ring(size, NODE) / within + ring(size, nodes) / between


def time(seconds: float) -> str:
    """In ms, to two digits."""
    value = seconds * 1e3
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def messages(all_works: Sequence[Work]) -> str:
    """The table of the gradients' messages."""
    head = ["", "parameters, M", "bytes an update, MB", "8 GPUs: each sends, MB", "NVLink", "PCIe 4", "25 GbE"]
    head += ["64: 25 GbE", "64: NDR", "512: 25 GbE", "512: NDR"]
    rows = []
    for work in all_works:
        size = work.message
        one = [ring(size, 8) / speed for speed in (NVLINK, PCIE, ETHERNET)]
        nets = ETHERNET, INFINIBAND
        many = [hierarchical(size, ranks // NODE, NVLINK, net) for ranks in (64, 512) for net in nets]
        numbers = [f"{work.parameters / 1e6:.1f}", f"{size / 1e6:.0f}", f"{ring(size, 8) / 1e6:.0f}"]
        rows.append([work.name, *numbers, *map(time, one + many)])
    return markdown(head, rows)


def others(all_works: Sequence[Work]) -> str:
    """The table of what comes now and then."""
    head = ["", "state, MB", "digest, s of a thread", "stall at a save, ms", "it is 1 % if a save comes each, s"]
    rows = []
    for work in all_works:
        stall = work.state * COPY
        numbers = [f"{work.state / 1e6:.0f}", f"{work.state * DIGEST:.2f}", time(stall), f"{stall * 100:.1f}"]
        rows.append([work.name, *numbers])
    return markdown(head, rows)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *rows])


def page(text: str, made: Callable[[], list[Work]] = works) -> str:
    """The page with its tables made anew."""
    all_works = made()
    tables = f"{BEGIN}\n\n{messages(all_works)}\n\n{others(all_works)}\n\n{END}"
    return re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: tables, text, flags=re.S)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
