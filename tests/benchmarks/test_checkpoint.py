"""The checkpoint benchmark runs, small, and what does not depend on time holds."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.warm.python import python

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def savers(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import _savers

    return _savers


def test_the_quick_run_measures_everybody(tmp_path):
    found = subprocess.run(
        [python(everything=True), str(BENCHMARKS / "checkpoint.py"), "--quick", "--dir", str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=250,
    )
    assert found.returncode == 0, found.stderr
    for name in ("torch.save + fsync + rename", "safetensors + fsync", "DCP save", "DCP async_save", "Treadle"):
        assert f"| {name} " in found.stdout
    assert "100 steps of the demo, CPU" in found.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_snapshot_copies_each_tensor_once_and_takes_no_new_memory(savers, tmp_path):
    """The stall is one copy: what the figures depend on, without a clock."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.calls = []

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.calls.append(function.overloadpacket.__name__)
            return function(*args, **(kwargs or {}))

    tensors = {str(index): torch.ones(100) for index in range(5)}
    saver = savers.Treadle()
    saver.start(tensors, tmp_path / "0")()
    with Count() as count:
        complete = saver.start(tensors, tmp_path / "1")
    complete()
    saver.close()
    assert [name for name in count.calls if name == "copy_"] == ["copy_"] * 5
    assert not {"empty", "empty_like", "clone", "zeros"} & set(count.calls)
