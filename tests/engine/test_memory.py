"""Keeping freed memory, in processes of their own: it is a setting of the whole process."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from treadle import Trainer
class Bare(Trainer):
    def step(self, batch):
        return {{}}
Bare(data=torch.zeros(2, 1), max_steps=1, keep_memory={keep}).{done}
def use():
    return torch.ones(16_000_000).sum()
for _ in range(3):
    use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")


def faults(keep: bool, done: str = "train()", **environment: str) -> int:
    process = subprocess.run(
        [sys.executable, "-c", FAULTS.format(keep=keep, done=done)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(process.stdout)


@glibc
def test_what_is_freed_is_not_faulted_in_again() -> None:
    kept, given_back = faults(True), faults(False)
    assert given_back > 20_000  # twenty times 64 MB, in pages of 4 KB or (with huge ones) of some more
    assert kept < given_back / 2, (kept, given_back)  # none as a rule; where the heap is cut up, it grows some times


@glibc
def test_the_environments_choice_stands() -> None:
    assert faults(True, MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072") > 20_000


@glibc
def test_a_trainer_that_does_not_train_leaves_the_process_as_it_is() -> None:
    assert faults(True, done="progress") > 20_000
