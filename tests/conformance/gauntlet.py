"""The gauntlet: runs that are killed again and again, and must end as if nobody had.

    python tests/conformance/gauntlet.py --kills 420      # `make gauntlet`: a table; exit code 1 where a digest differs

For each example (and recipe) there is one run that nobody touches. Then the same run is killed with SIGKILL, at random
instants and at planted points (in a step, in validation, in each stage of a checkpoint write, within a row edit),
resumed by a new process, killed again, and so on. Its state's digest, its metric lines, its series, its best models
and those kept at validations must be those of the untouched run, to the bit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
VALIDATED = (
    "observed",
    "ragged_sequences",
    "everything",
    "lazy_modules",
    "stream_validation",
    "channels_last",
    "ranked",
    "image",
    "pix2pix",
    "cyclegan",
    "label_maps",
    "rectangles",
    "splats",
    "splats_adc",
    "own_densification",
    "sdf",
    "nerf",
    "tracts",
    "tracts_memory",
    "tracts-autoencoder",
    "char_gpt",
    "byol",
    "word_lstm",
)
LOOPS = ("plain_loop",)
"""Programs without a trainer, which leave checkpoints alone."""
STAGES_OF = {
    "row edit": ("growing_gaussians", "everything", "splats", "splats_adc", "own_densification", "sdf", "nerf"),
    "validation": VALIDATED,
    "best model": VALIDATED,
    "kept model": ("everything", "pix2pix", "cyclegan", "label_maps", "rectangles", "unpaired_floats"),
    "rollback": ("everything",),
}
"""Stages that only some of them have."""


class Child:
    """The process that forks the runs; `fresh` starts a new interpreter for each instead."""

    def __init__(self, *, fresh: bool = False) -> None:
        self.environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "random"}
        self.fresh = fresh
        self.process: subprocess.Popen[str] | None = None
        if not fresh:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "gauntlet_child.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=self.environment,
            )

    def run(self, task: dict[str, Any]) -> dict[str, Any]:
        """Train `task` in a new process until it ends or is killed; returns its exit code and how long it lived."""
        if self.process is None:
            return self._run_fresh(task)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def _run_fresh(self, task: dict[str, Any]) -> dict[str, Any]:
        begin = time.monotonic()
        after = (task["kill"] or {}).get("after")
        command = [sys.executable, str(HERE / "gauntlet_child.py"), "--task", json.dumps(task)]
        with open(task["log"], "a") as log:
            process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
            try:
                process.wait(timeout=after)
            except subprocess.TimeoutExpired:
                process.kill()
        return {"code": process.wait(), "seconds": time.monotonic() - begin}

    def close(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.communicate()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class Row:
    """What became of one run."""

    name: str
    workers: int
    kills: int = 0
    resumes: int = 0
    lost_steps: int = 0
    stages: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)
    seconds: float = 0.0


def lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a JSON-lines file."""
    if not path.exists():
        return []
    return [json.loads(text) for text in path.read_bytes().split(b"\n")[:-1]]


def outcome(run: Path) -> dict[str, Any]:
    """Everything of a run that has to be equal; of a loop without a trainer, its state at the end."""
    if name_of_loop(run):
        newest = sorted(run.glob("step-*"))[-1]
        return {"status": "finished", "digest": json.loads((newest / "manifest.json").read_text())["digest"]}
    summary = json.loads((run / "summary.json").read_text())
    found: dict[str, Any] = {name: summary[name] for name in ("status", "reason", "step", "epoch", "digest", "best")}
    found["metrics"] = summary["metrics"], summary["validation_metrics"]
    found["metrics.jsonl"] = [{k: v for k, v in line.items() if k != "time"} for line in lines(run / "metrics.jsonl")]
    models = [path for kept in ("best_model*", "models") for path in run.glob(f"{kept}/**/*.safetensors")]
    for path in sorted([*run.glob("logs/*.npy"), *models]):
        found[str(path.relative_to(run))] = path.read_bytes()
    checkpoints = sorted(run.glob("checkpoints/step-*"))
    found["newest checkpoint"] = json.loads((checkpoints[-1] / "manifest.json").read_text())["digest"]
    return found


def compare(reference: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """The names of what differs."""
    return [name for name in sorted(reference.keys() | found.keys()) if reference.get(name) != found.get(name)]


def name_of_loop(run: Path) -> str | None:
    """What the loop without a trainer is called whose directory `run` is; None for a trainer's run."""
    name = run.parent.name.partition("-")[0]
    return name if name in LOOPS else None


def last_step(run: Path) -> int:
    """The step of the newest metric line: how far the run had come."""
    return max((line["step"] for line in lines(run / "metrics.jsonl")), default=0)


def random_kill(rng: random.Random, name: str, life: float, stages: list[str]) -> dict[str, Any]:
    """A planted point or, one time in three, an instant of the process's life."""
    if rng.random() < 1 / 3:
        return {"after": rng.uniform(0, life)}
    fitting = [s for s in stages if name in STAGES_OF.get(s.partition(":")[0], (name,))]
    if name in LOOPS:
        fitting = [s for s in fitting if s.startswith(("checkpoint", "snapshot"))]
    return {"at": rng.choice(fitting), "nth": rng.choice([1, 1, 2, 3, 5])}


def run_gauntlet(
    child: Child,
    name: str,
    workers: int,
    kills: int,
    seed: int,
    directory: Path,
    stages: list[str],
    reference: tuple[dict[str, Any], float],
    plan: list[dict[str, Any]] | None = None,
) -> Row:
    """Kill runs of `name` until there have been `kills` (each of `plan` first); a run that comes through is checked."""
    rng, row, number = random.Random(f"{seed} {name} {workers}"), Row(name, workers), 0
    planned = list(plan or [])
    begin = time.monotonic()
    wanted, life = reference
    while not row.differences and (row.kills < kills or number == 0):
        number += 1
        run = directory / f"{name}-{workers}-{number}" / "v001"
        run.parent.mkdir()
        attempts = 0
        while True:
            attempts += 1
            killing = (planned or row.kills < kills) and attempts <= 12
            kill = (planned.pop(0) if planned else random_kill(rng, name, life, stages)) if killing else None
            there = sorted(run.glob("step-*")) if name in LOOPS else []
            before, journal = last_step(run), len(lines(run / "journal.jsonl"))
            task = {"name": name, "run": str(run), "workers": workers, "log": str(run.parent / "log"), "kill": kill}
            ended = child.run(task)
            entries = lines(run / "journal.jsonl")[journal:]
            resumed = next((entry["step"] for entry in entries if entry["event"] == "resume"), None)
            if there:
                resumed = int(there[-1].name.removeprefix("step-"))
            if attempts > 1 and resumed is not None:
                row.resumes += 1
                row.lost_steps += max(0, before - resumed)
            if ended["code"] == -9:
                row.kills += 1
                assert kill is not None
                row.stages[kill.get("at", "any time")] += 1
                continue
            if ended["code"] != 0:
                row.differences.append(f"exit code {ended['code']}: {(run.parent / 'log').read_text()[-2000:]}")
            break
        if not row.differences:
            row.differences = compare(wanted, outcome(run))
    row.seconds = time.monotonic() - begin
    return row


def reference_of(child: Child, name: str, directory: Path) -> tuple[dict[str, Any], float]:
    """The run that nobody kills: its outcome, and how long its process lived."""
    run = directory / f"{name}-reference" / "v001"
    run.parent.mkdir()
    log = run.parent / "log"
    ended = child.run({"name": name, "run": str(run), "workers": 0, "log": str(log), "kill": None})
    if ended["code"] != 0:
        raise SystemExit(f"{name} fails without any kill: {log.read_text()[-2000:]}")
    found = outcome(run)
    if found["status"] != "finished":
        raise SystemExit(f"{name} does not finish without any kill: {found['status']} {found['reason']}")
    return found, ended["seconds"]


def show(rows: list[Row]) -> None:
    """Print the table."""
    print(f"\n{'run':<20}{'workers':>8}{'kills':>7}{'resumes':>9}{'lost steps':>12}{'digests equal':>15}{'seconds':>9}")
    for row in rows:
        equal = "NO" if row.differences else "yes"
        print(
            f"{row.name:<20}{row.workers:>8}{row.kills:>7}{row.resumes:>9}{row.lost_steps:>12}{equal:>15}"
            f"{row.seconds:>9.0f}"
        )
    total = [sum(getattr(row, name) for row in rows) for name in ("kills", "resumes", "lost_steps", "seconds")]
    bad = sum(bool(row.differences) for row in rows)
    verdict = f"{bad} differ" if bad else "all"
    print(f"{'all':<20}{'':>8}{total[0]:>7}{total[1]:>9}{total[2]:>12}{verdict:>15}{total[3]:>9.0f}")
    stages: Counter[str] = sum((row.stages for row in rows), Counter())
    print("\nkilled where:", ", ".join(f"{name} ({count})" for name, count in sorted(stages.items())))
    for row in rows:
        for difference in row.differences:
            print(f"DIFFERS: {row.name}, {row.workers} workers: {difference}")


def main() -> int:
    """Run the long form; returns 1 where anything differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=240, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="names; default: all")
    parser.add_argument("--fresh", action="store_true", help="a new interpreter for every process, not a fork")
    options = parser.parse_args()
    sys.path.insert(0, str(HERE))
    from gauntlet_child import STAGES
    from gauntlet_trainers import BUILDERS, MAP_STYLE, RECIPES, recipes

    names = options.only or [*BUILDERS, *LOOPS, *(name for name in recipes() if name in RECIPES)]
    cases = [(name, workers) for name in names for workers in ((0, 2) if name in MAP_STYLE else (0,))]
    # Processes that start workers take seconds: they get half as many kills as the others.
    share = options.kills / sum(0.5 if workers else 1 for _, workers in cases)
    rows = []
    with tempfile.TemporaryDirectory(prefix="treadle-gauntlet-") as directory, Child(fresh=options.fresh) as child:
        references = {name: reference_of(child, name, Path(directory)) for name in names}
        for name, workers in cases:
            kills = -(-int(share * (0.5 if workers else 1) + 1) // 1)
            row = run_gauntlet(
                child, name, workers, kills, options.seed, Path(directory), list(STAGES), references[name]
            )
            rows.append(row)
            print(f"{name}, {workers} workers: {row.kills} kills, {row.seconds:.0f} s", flush=True)
    show(rows)
    return int(any(row.differences for row in rows))


if __name__ == "__main__":
    sys.exit(main())
