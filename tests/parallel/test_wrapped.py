"""Networks that are wrapped or sharded for several processes already: refused in a line, before a run is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import distribute_tensor, init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from tests.parallel.test_group import Net, some_data
from tests.parallel.together import together
from treadle import UsageError


class Wrapped(Net):
    def setup(self) -> None:
        super().setup()
        self.model = nn.Sequential(DistributedDataParallel(self.model))


class Sharded(Net):
    def setup(self) -> None:
        super().setup()
        fully_shard(self.model, mesh=init_device_mesh("cpu", (2,)))
        self.optimizer = torch.optim.Adam(self.model.parameters())


class Spread(Net):
    def setup(self) -> None:
        super().setup()
        self.rows = nn.Parameter(distribute_tensor(torch.zeros(4, 2), init_device_mesh("cpu", (2,))))


def refused(path: str) -> list[str]:
    said = []
    for kind in (Wrapped, Sharded, Spread):
        for where in ({}, {"run_dir": path}):
            try:
                settings: dict[str, Any] = {"batch_size": 8, "max_steps": 2, **where}
                kind(data=some_data(), **settings).train()
            except UsageError as error:
                said.append(str(error).partition(",")[0])
    return said


def test_wrapped_and_sharded_networks_are_refused_before_a_run_is_made(tmp_path: Path) -> None:
    found = together(2, tmp_path, refused, str(tmp_path / "run"))
    assert found[0] == found[1]
    said = [
        "'model.0' is wrapped in DistributedDataParallel",
        "module 'model' is sharded over processes (fully_shard",
        "parameter 'rows' is sharded over processes (fully_shard",
    ]
    assert found[0] == [text for text in said for _ in range(2)]
    assert not (tmp_path / "run").exists()
