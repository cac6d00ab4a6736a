"""The gauntlet of runs that several processes train: killed again and again, they end as if nobody had.

    python tests/parallel/gauntlet_ranks.py --kills 60      # `make gauntlet-ranks`; exit code 1 where a digest differs

Two processes train; one of them, or both, are killed with SIGKILL at planted points: in a step, in a row edit, in a
validation, in the stages of a checkpoint write. The processes are started anew, resume, and are killed again. In the
end digest and metric lines must be those of the run that nobody has touched.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.parallel.packs import CONFORMANCE, build, write_data
from tests.parallel.together import together

NAMES = ("growing_gaussians", "gan_2d", "ragged_sequences", "splats_adc", "cyclegan")
STAGES = {
    "step: before backward": (0, 1),
    "step: parameters updated": (0, 1),
    "step: counted": (0, 1),
    "log: half a metric line": (0,),
    "row edit: in the middle": (0, 1),
    "row edit: done": (0, 1),
    "validation: begins": (0, 1),
    "checkpoint: half the tensors": (0,),
    "checkpoint: before its rename": (0,),
    "checkpoint: before latest.json": (0,),
    "resume: restored": (0, 1),
}
"""Where a process is killed, and which of them come there."""


Plan = dict[str, Any]
"""{"at": a stage, "nth": in which of its calls, "ranks": who is killed there}"""


def train(name: str, run: str, plan: Plan | None, settings: dict[str, Any]) -> str:
    """Begin or resume a run in each process, and kill those that the plan names, where it says."""
    from treadle.parallel import this_world

    if str(CONFORMANCE) not in sys.path:
        sys.path.insert(0, str(CONFORMANCE))
    world = this_world()
    if plan is not None and world.rank in plan["ranks"]:
        importlib.import_module("gauntlet_child").plant(plan["at"], plan["nth"])
    trainer = build(name, run, settings | {"resume": "auto"})
    trainer.train()
    digest: str = trainer.digest()
    return digest


@dataclass
class Row:
    """What came of a run: kills by where they came, starts in all, and what differs in the end."""

    name: str
    kills: dict[str, int] = field(default_factory=dict)
    starts: int = 0
    differences: list[str] = field(default_factory=list)


def lines_of(run: Path) -> list[dict[str, Any]]:
    """The metric lines of a run, without what is measured by a clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("time", "seconds")} for line in lines]


def run_gauntlet(
    name: str, place: Path, kills: int, seed: int, settings: dict[str, Any] | None = None, plans: Sequence[Plan] = ()
) -> Row:
    """Kill a run `kills` times, where and in whom is drawn, and let it end. A run that has ended is begun anew.

    `plans` are what is done before anything is drawn.
    """
    settings, given = settings or {}, list(plans)
    draw, row = random.Random(seed), Row(name)
    meet = place / "meet"
    meet.mkdir()
    write_data(name, place)
    (whole, _) = together(2, meet, train, name, str(place / "whole"), None, settings)
    run, turn = place / "run", 0
    while sum(row.kills.values()) < kills or turn:
        stage = draw.choice(list(STAGES))
        ranks = draw.choice([[rank] for rank in STAGES[stage]] + [[0, 1]])
        plan: Plan = {"at": stage, "nth": draw.randint(1, 9), "ranks": ranks}
        if given:
            plan = given.pop(0)
            stage, ranks = plan["at"], plan["ranks"]
        turn += 1
        row.starts += 1
        try:
            found = together(
                2, meet, train, name, str(run), plan if sum(row.kills.values()) < kills else None, settings
            )
        except (RuntimeError, OSError) as error:
            if not any(text in str(error) for text in ("has died", "is gone", "Broken pipe", "Connection reset")):
                raise
            where = f"{stage} of {'both' if len(ranks) > 1 else ranks[0]}"
            row.kills[where] = row.kills.get(where, 0) + 1
            continue
        if set(found) != {whole}:
            row.differences.append(f"the digest, after {turn} starts")
        if lines_of(run / "v001") != lines_of(place / "whole" / "v001"):
            row.differences.append(f"the metric lines, after {turn} starts")
        turn = 0
        shutil.rmtree(run)
    return row


def main() -> int:
    """The long form: a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*")
    options = parser.parse_args()
    names, killed, differing = options.only or NAMES, 0, 0
    for index, name in enumerate(names):
        count = (options.kills - killed) // (len(names) - index)
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as place:
            row = run_gauntlet(name, Path(place), count, options.seed + index)
        killed += sum(row.kills.values())
        differing += len(row.differences)
        seconds = time.monotonic() - began
        print(f"{name:20} {sum(row.kills.values()):3} kills {row.starts:4} starts {seconds:6.0f} s {row.differences}")
        for where, times in sorted(row.kills.items()):
            print(f"    {times:2} {where}")
        sys.stdout.flush()
    print(f"{killed} kills, {differing} differing")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
