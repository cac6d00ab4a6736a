"""The gauntlet of runs that several processes train under torchrun: killed again and again, they end as if nobody had.

    python tests/parallel/gauntlet_ranks.py --kills 72      # `make gauntlet-ranks`; exit code 1 where anything is lost

What is killed, with SIGKILL at planted points, is one of two processes, both, torchrun itself (the agent), or all of
them. Runs go on in three ways: a new torchrun each time; the same torchrun, which starts them again (`--max-restarts`);
and, with `parts=2`, in 2, 1 and 2 processes by turns. In the end digest and metric lines must be those of the run that
nobody has touched. After each kill all checkpoints must be whole, and no process may be there a minute later.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.parallel.launched import Launched, answers, program
from tests.parallel.packs import write_data
from treadle import StateError
from treadle.checkpoint.store import list_checkpoints, newest_good, read_checkpoint
from treadle.runs.run import read_journal

NAMES = ("growing_gaussians", "ragged_sequences", "gan_2d", "splats_adc")
HOWS = ("anew", "restarted", "2-1-2")
"""How a run goes on: under a new torchrun, under the same one, in another number of processes."""
STAGES: dict[str, tuple[int, ...]] = {
    "row edit: in the middle": (0, 1),
    "row edit: done": (0, 1),
    "validation: begins": (0, 1),
    "validation: ends": (0, 1),
    "checkpoint: half the tensors": (0,),
    "checkpoint: before its rename": (0,),
    "checkpoint: before latest.json": (0,),
    "step: before backward": (0, 1),
    "step: parameters updated": (0, 1),
    "step: counted": (0, 1),
    "log: half a metric line": (0,),
    "resume: restored": (0, 1),
    "start: torchrun has started it": (0, 1),
}
"""Where something is killed, and which of the processes come there."""
OF = {"row edit": ("growing_gaussians", "splats_adc"), "validation": ("ragged_sequences",)}
"""What only some of them do."""
VICTIMS = ("agent", "itself", "all", "ranks")
ORPHANS = 60.0
"""Seconds after which nothing may be left of a torchrun that has been killed."""

Plan = dict[str, Any]
"""{"at": a stage, "nth": in which of its calls, "rank": in which process, "victim": who is killed then}"""


@dataclass
class Row:
    """What came of a trainer's runs."""

    title: str
    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By where they came ("step") and whom they hit ("agent")."""
    starts: int = 0
    seconds: float = 0.0
    """The longest that processes lived after their agent."""
    lost: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How often something was killed."""
        return sum(self.kills.values())

    @property
    def faults(self) -> list[str]:
        """Everything that should not be."""
        return [*self.lost, *self.differing, *self.left]


def lines_of(run: Path) -> list[dict[str, Any]]:
    """The metric lines of a run, without what is measured by a clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("time", "seconds")} for line in lines]


def drawn(name: str, seed: int) -> Iterator[Plan]:
    """Where a trainer's processes are killed, and who: first in what not all of them do, then everywhere by turns."""
    draw = random.Random(seed)
    stages = [stage for stage in STAGES if name in OF.get(stage.partition(":")[0], NAMES)]
    own = [stage for stage in stages if stage.partition(":")[0] in OF]
    rest = [stage for stage in stages if stage not in own]
    draw.shuffle(rest)
    victims = draw.sample(VICTIMS, len(VICTIMS))
    for turn in itertools.count():
        for number, stage in enumerate([*own, *rest]):
            once = stage.startswith(("start", "resume"))
            yield {
                "at": stage,
                "nth": 1 if once else draw.randint(1, 6 if stage.startswith("step") else 2),
                "rank": draw.choice(STAGES[stage]),
                "victim": victims[(number + turn) % len(victims)],
            }


class Gauntlet:
    """Runs of one trainer that go on in one way.

    Args:
        how: one of `HOWS`.
        place: a directory of its own.
        settings: other settings of the trainer.
    """

    def __init__(self, name: str, how: str, place: Path, settings: dict[str, Any] | None = None) -> None:
        self.name, self.how, self.place, self.row = name, how, place, Row(f"{name}, {how}")
        self.settings = {**(settings or {}), **({"parts": 2} if how == "2-1-2" else {})}
        self.run, self.struck = place / "run", place / "struck"
        self.struck.touch()
        write_data(name, place)
        (_, status, self.whole), *_ = self.start("whole", 2, [])
        assert status == "finished", self.said

    def start(self, run: str, size: int, plans: Sequence[Plan]) -> list[list[Any]]:
        """Start a torchrun once, which starts its processes again while there are plans left; what they say."""
        self.row.starts += run == "run"
        task = {
            "name": self.name,
            "run": str(self.place / run),
            "resume": "auto" if self.how != "restarted" or (self.place / run).exists() else False,
            "settings": self.settings,
            "plans": [{**plan, "rank": plan["rank"] % size} for plan in plans],
            "struck": str(self.struck),
        }
        own = ["--standalone", "--nproc-per-node", str(size), "--max-restarts", str(max(0, len(plans) - 1))]
        launched = Launched(own, program(json.dumps(task)), self.place, f"torchrun-{run}-{self.row.starts}")
        launched.wait()
        seconds, left = launched.wait_for_all(ORPHANS)
        self.row.seconds = max(self.row.seconds, seconds)
        if left:
            self.row.left.append(f"{len(left)} processes, {ORPHANS:g} s after {plans}")
            launched.kill()
        self.said = launched.said
        return answers(self.said)

    def kill(self, kills: int, plans: Iterator[Plan]) -> Row:
        """Kill runs where the plans say, and let the last one end; one that has ended is begun anew."""
        row, begun = self.row, False
        while row.count < kills or begun:
            wanted = min(kills - row.count, 3 if self.how == "restarted" else 1)
            size = (2, 1, 2)[row.starts % 3] if self.how == "2-1-2" else 2
            before = self._step()
            found = self.start("run", size, list(itertools.islice(plans, wanted)))
            struck = [json.loads(line) for line in self.struck.read_text().splitlines()] if wanted else []
            self.struck.write_text("")
            row.kills.update((plan["at"].partition(":")[0], plan["victim"]) for plan in struck)
            begun = True
            if len(found) == size and {status for _, status, _ in found} == {"finished"}:
                self._compare({digest for _, _, digest in found}, f"after {row.count} kills")
                shutil.rmtree(self.run)
                begun = False
            elif not struck:
                row.lost.append(f"a start that ended in an error:\n{self.said}")
                return row
            else:
                self._inspect(struck[-1], before)
        return row

    def _step(self) -> int:
        """The step of the newest checkpoint; -1 where there is none."""
        found = list(newest_good(self.run / "v001" / "checkpoints"))[-1:]
        return max((state.step for _, state in found if not isinstance(state, StateError)), default=-1)

    def _inspect(self, plan: Plan, before: int) -> None:
        """Whether all is there after a kill."""
        for path in list_checkpoints(self.run / "v001" / "checkpoints"):
            try:
                read_checkpoint(path)
            except StateError as error:
                self.row.lost.append(f"{error}, after {plan}")
        if self._step() < before:
            self.row.lost.append(f"the checkpoint of step {before}, after {plan}")
        if plan["victim"] == "agent" and plan["training"]:
            events = [entry["event"] for entry in read_journal(self.run / "v001")]
            if "stop" not in events or events[-1] != "checkpoint":
                self.row.lost.append(f"what was not saved after {plan}: {events[-3:]}\n{self.said}")

    def _compare(self, digests: set[str], when: str) -> None:
        if digests != {self.whole}:
            self.row.differing.append(f"the digest, {when}")
        if lines_of(self.run / "v001") != lines_of(self.place / "whole" / "v001"):
            self.row.differing.append(f"the metric lines, {when}")
        if [path.name for path in self.run.glob("v*")] != ["v001"]:
            self.row.lost.append(f"a run begun anew, {when}")


def table(rows: Sequence[Row]) -> str:
    """Everything in one."""
    places = list(dict.fromkeys(stage.partition(":")[0] for stage in STAGES))
    head = ["", "kills", "starts", *VICTIMS, *places, "lost", "differing", "left", "longest"]
    lines = []
    for row in rows:
        of_victims = [sum(n for (_, who), n in row.kills.items() if who == victim) for victim in VICTIMS]
        of_places = [sum(n for (where, _), n in row.kills.items() if where == place) for place in places]
        faults = [len(row.lost), len(row.differing), len(row.left)]
        lines.append([row.title, row.count, row.starts, *of_victims, *of_places, *faults, round(row.seconds, 1)])
    sums = [sum(column) for column in list(zip(*lines, strict=True))[1:-1]]
    lines.append(["all", *sums, max(line[-1] for line in lines)])
    wide = [30, *(max(6, len(each) + 2) for each in head[1:])]
    texts = [[f"{cell:>{width}}" for cell, width in zip(line, wide, strict=True)] for line in [head, *lines]]
    return "\n".join("".join(line) for line in texts)


def main() -> int:
    """The long form: a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=72)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=NAMES)
    parser.add_argument("--how", nargs="*", default=HOWS)
    options = parser.parse_args()
    pairs, rows = list(itertools.product(options.only, options.how)), []
    for index, (name, how) in enumerate(pairs):
        kills = (options.kills - sum(row.count for row in rows)) // (len(pairs) - index)
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as place:
            rows.append(Gauntlet(name, how, Path(place)).kill(kills, drawn(name, options.seed + index)))
        print(f"{rows[-1].title}: {rows[-1].count} kills in {time.monotonic() - began:.0f} s", file=sys.stderr)
        for fault in rows[-1].faults:
            print(f"    {fault}", file=sys.stderr)
    print(table(rows))
    return 1 if any(row.faults for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
