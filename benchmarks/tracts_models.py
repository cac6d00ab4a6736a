"""Recurrent nets on streamlines: in stretches of time against packed sequences, and an epoch against dwi_ml's loop.

    python benchmarks/tracts_models.py             the tables, and whether the promises hold (exit 1 where not)
    python benchmarks/tracts_models.py --write     also stores them in benchmarks/results/tracts_models.md
    python benchmarks/tracts_models.py --quick     few rounds and small nets, and no promise about time; for the tests

How it is measured. One thread; CPU time of the process; both sides in turns in one process, the median of the rounds'
ratios counts. A batch: 100 lines of 30 to 100 points, 100 features, two layers, forward and backward, as in Learn2Track
at full size; outputs must agree to 1e-6 and gradients to 1e-5 of each tensor's largest, or nothing is measured. Both
begin with packed rows (p, 100) and end with rows in the same order; packing and unpacking count, as blocks do.

An epoch: 32 batches to train on and 20 to validate, 100 lines of 10 to 30 points each, 29 features, LSTM 100-100 with
one previous direction, the cosine. Ours is `TractsTrainer` as it is, with its feed, without a run on disk; dwi_ml's is
its loop written out (`_dwi_ml_loop.py`), from the same weights on the same batches; its mean loss must be ours. "As it
is" looks through all objects of the process before each batch, for a log that is off by default; how many there are
depends on what was imported, so what dwi_ml imports is imported here, too, as far as it is installed.
"""

from __future__ import annotations

import argparse
import copy
import gc
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from _dwi_ml_loop import Loop, Source, import_libraries
from _report import Gate, machine, table
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence

from treadle.tracts.models.recurrent import Recurrent
from treadle.tracts.models.settings import ModelSettings, build_model
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.subject import MemorySubject, TractData
from treadle.tracts.trainer import TractsTrainer

RESULTS = Path(__file__).parent / "results" / "tracts_models.md"
NETS: tuple[tuple[Literal["lstm", "gru"], int, float | None], ...] = (
    ("lstm", 500, 5), ("lstm", 100, 3), ("gru", 500, 3), ("gru", 100, None),
)  # fmt: skip
"""Kind, neurons of both layers, and how many times as fast as packed sequences it is to be."""

OURS, PLAIN, SCANNING = "ours", "dwi_ml without the scan", "dwi_ml as it is"


def cpu_seconds(action: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    action()
    return time.process_time() - start


# Nets ---------------------------------------------------------------------------------------------------------------


def packed(model: Recurrent, features: Tensor, offsets: Tensor) -> Tensor:
    """The same layers on packed sequences: rows (p, width), in the order of the lines."""
    lines = pack_sequence(list(features.split(offsets.diff().tolist())), enforce_sorted=False)
    marks: Any = lines.batch_sizes, lines.sorted_indices, lines.unsorted_indices
    first, second = model.layers
    lines = PackedSequence(first(lines)[0].data.relu(), *marks)
    return torch.cat(unpack_sequence(PackedSequence(second(lines)[0].data, *marks)))


def gradients(model: Recurrent, run: Callable[[], Tensor], weights: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Outputs, and the gradients of a sum of them."""
    model.zero_grad(set_to_none=True)
    outputs = run()
    (outputs * weights).sum().backward()
    return outputs.detach(), [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def compare(kind: Literal["lstm", "gru"], size: int, rounds: int) -> tuple[float, float, float]:
    """Median CPU seconds of ours and of packed sequences, and the median of their ratios."""
    torch.manual_seed(0)
    model = build_model(ModelSettings(model=kind, sizes=[size, size], previous_directions=0), 100)
    assert isinstance(model, Recurrent)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), torch.randint(30, 101, (100,)).cumsum(0)])
    features = torch.randn(int(offsets[-1]), 100)
    weights = torch.randn(int(offsets[-1]), size)
    nothing = features[:, :3]
    sides = (lambda: model(features, nothing, offsets), lambda: packed(model, features, offsets))
    (ours, our_gradients), (theirs, their_gradients) = (gradients(model, side, weights) for side in sides)
    assert float((ours - theirs).abs().max()) <= 1e-6, "other outputs"
    for one, other in zip(our_gradients, their_gradients, strict=True):
        assert float((one - other).abs().max()) <= 1e-5 * float(other.abs().max()), "other gradients"
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds):
        for side in (0, 1) if turn % 2 else (1, 0):
            seconds[side].append(cpu_seconds(lambda side=side: gradients(model, sides[side], weights)))  # type: ignore[misc]
    ratios = [ours / theirs for ours, theirs in zip(*seconds, strict=True)]
    return statistics.median(seconds[0]), statistics.median(seconds[1]), statistics.median(ratios)


# An epoch -----------------------------------------------------------------------------------------------------------


def subject(name: str, lines: int, features: int, seed: int) -> MemorySubject:
    """Lines of 10 to 30 points that bend at random, in a volume of random numbers with voxels of 1 mm."""
    rng = np.random.default_rng(seed)
    made = []
    for length in rng.integers(10, 31, lines):
        steps = rng.normal(size=3) + 0.2 * rng.normal(size=(length - 1, 3)).cumsum(0)
        steps /= np.linalg.norm(steps, axis=1, keepdims=True)
        made.append(rng.uniform(15, 25, 3) + np.concatenate([np.zeros((1, 3)), 0.5 * steps.cumsum(0)]))
    volume = rng.normal(size=(40, 40, 40, features)).astype(np.float32)
    space = Space(np.eye(4), volume.shape[:3])
    return MemorySubject(name, space, {"volume": (volume, "")}, {"lines": Streamlines.of(made)})


def epochs(batches: int, validated: int, size: int, rounds: int) -> tuple[dict[str, list[float]], int]:
    """CPU seconds of an epoch by side and round, and how many objects the scan looks through."""
    data = [subject(name, count * 100, 29, seed) for name, count, seed in (("a", batches, 0), ("b", validated, 1))]
    settings: Any = {
        "model": "lstm",
        "sizes": [size, size],
        "seed": 0,
        "max_epochs": rounds + 1,
        "first_direction": "as_is",
    }
    settings |= {"max_batches": batches, "max_validation_batches": validated, "validate_every": "1 epoch"}
    trainer = TractsTrainer(
        data=TractData((data[0],), (data[1],)), log_every="1 epoch", device="cpu", track_seeds=0, **settings
    )
    sources = [
        Source(torch.from_numpy(each.volume("volume")), [lines[k] for k in range(len(lines))])
        for each, lines in ((each, each.streamlines("lines")) for each in data)
    ]
    loops = {name: Loop(copy.deepcopy(trainer.model), name == SCANNING) for name in (PLAIN, SCANNING)}
    held_out = [batch.lines.tolist() for batch in trainer.validation_feed.iterate(0)]
    seconds: dict[str, list[float]] = {name: [] for name in (OURS, *loops)}
    for turn in range(rounds + 1):
        training = [batch.lines.tolist() for batch in trainer.feed.iterate(turn)]
        for loop in loops.values():  # all begin alike: two trainings that are rounded differently part in time
            loop.begin_as(trainer.model, trainer.optimizer)
        losses: dict[str, float] = {}

        def ours() -> None:
            for _ in range(batches):
                assert trainer.iterate()

        def theirs(name: str, training: list[list[int]] = training, losses: dict[str, float] = losses) -> None:
            loops[name].epoch(sources[0], training, learns=True)
            losses[name] = loops[name].epoch(sources[1], held_out, learns=False)

        for name in seconds if turn % 2 else reversed(seconds):
            spent = cpu_seconds(ours if name == OURS else partial(theirs, name))
            if turn:  # the first round compiles and warms up
                seconds[name].append(spent)
        losses[OURS] = float(trainer.validation_metrics["loss"])
        assert max(losses.values()) - min(losses.values()) <= 1e-3 * losses[OURS], f"other losses: {losses}"
    trainer.close()
    return seconds, len(gc.get_objects())


def report(quick: bool) -> tuple[str, list[Gate]]:
    """The tables, and what they promise."""
    rows, gates = [], []
    for kind, size, times in NETS:
        size = size // 10 if quick else size
        ours, theirs, ratio = compare(kind, size, 2 if quick else 9 if size > 100 else 15)
        rows.append([f"{kind.upper()} {size}", f"{theirs:.3f}", f"{ours:.3f}", f"{1 / ratio:.2f}"])
        if times is not None:
            gates.append(Gate(f"{kind.upper()} {size}: ours / packed", ratio, 1 / times))
    text = f"{machine(['numba'])}\n\n100 lines of 30 to 100 points, 100 features, two layers, forward and backward.\n\n"
    text += table(["net", "packed, CPU s", "ours, CPU s", "times as fast"], rows)
    libraries = import_libraries()
    batches, validated, size, rounds = (2, 1, 10, 1) if quick else (32, 20, 100, 5)
    seconds, objects = epochs(batches, validated, size, rounds)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    ratios = {
        name: statistics.median(a / b for a, b in zip(seconds[OURS], each, strict=True))
        for name, each in seconds.items()
    }
    text += f"\n\nAn epoch of {batches} + {validated} batches of 100 lines of 10 to 30 points, 29 features, "
    text += f"LSTM {size}-{size}; the scan looks through {objects:,} objects (with {', '.join(libraries)}).\n\n"
    text += table(
        ["loop", "CPU s an epoch", "ours is so many times as fast"],
        [[name, f"{medians[name]:.3f}", f"{1 / ratios[name]:.2f}"] for name in seconds],
    )
    gates.append(Gate("an epoch: ours / dwi_ml without its scan", ratios[PLAIN], 0.5))
    gates.append(Gate("an epoch: ours / dwi_ml as it is", ratios[SCANNING], 0.1))
    return text, [] if quick else gates


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true", help="store the tables in benchmarks/results/tracts_models.md")
    parser.add_argument("--quick", action="store_true", help="few rounds and small nets, no promise about time")
    options = parser.parse_args()
    torch.set_num_threads(1)
    text, gates = report(options.quick)
    if gates:
        text += "\n\n" + table(Gate.HEAD, [gate.row() for gate in gates])
    print(text)
    if options.write:
        _, how, method = (__doc__ or "").partition("How it is")
        RESULTS.write_text(f"# Recurrent nets on streamlines\n\n{text}\n\n{how}{method}")
    return 0 if all(gate.held for gate in gates) else 1


if __name__ == "__main__":
    sys.exit(main())
