"""Treadle beside four others: a step's cost, a program's length, a kill in mid-epoch, a parameter that grows.

    python benchmarks/trainers.py              the table (some minutes)
    python benchmarks/trainers.py --write      also stores it in benchmarks/results/trainers.md
    python benchmarks/trainers.py --quick      Treadle alone, and nothing that depends on time; for the tests

Each cell is measured here.

*CPU per step* and *Python calls per step*, both beyond a raw PyTorch loop's: as benchmarks/loop.py measures them, on
its MLP, with nothing logged and no callbacks.

*Lines*: those with code on them of benchmarks/_trainers/with_*.py, one program for each: the training of PyTorch's own
example `mnist` (a convolutional network with dropout, Adadelta, a rate cut after each epoch, a test after each), and on
top of it a checkpoint every four steps and the resume from the newest one. Each is written as its framework's
documentation shows it: Lightning with `ModelCheckpoint(every_n_train_steps=)`, `fit(ckpt_path="last")` and torchdata's
`StatefulDataLoader`; Fabric with `fabric.save` and `fabric.load` of all that has a state, that loader too; Accelerate
with `save_state`, `load_state`, `skip_first_batches`, its seedable sampler and a generator for the loader; Ignite with
`DeterministicEngine`, `keep_random_state`, `Checkpoint` and, as that engine asks for, a loader with worker processes.

*Exact resume in mid-epoch*: the program is run to its end; then again, killed with SIGKILL in its 15th step, in the
second of three epochs, and started once more. "yes" where the weights at the end are those of the run that nobody
killed, to the bit. It is asked twice, with dropout in the network and without: where the answers differ, what is not
restored is the state of the random generators (Lightning and Fabric save none unless the program does). Before that,
two runs that nobody touches have to be equal.

*A parameter that grows*: after nine updates one parameter and its two moments get more rows: in Treadle by `edit_rows`,
elsewhere by hand, in PyTorch (`grow_by_hand` in benchmarks/_trainers/problem.py, called by the optimizer's
`register_step_post_hook`). Then the same kill and the same resume.

Peers come with `pip install 'treadle[bench]'`; those that are missing are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import io
import os
import subprocess
import sys
import tempfile
import tokenize
from dataclasses import dataclass
from pathlib import Path

from _report import Gate, machine, table
from _turns import Contestant, compete
from loop import JUDGED, PACKAGES, RAW, TRAIN, calls, installed, over

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "trainers.md"
PROGRAMS = HERE / "_trainers"
KILL_AT = 14
"""Training steps that are taken before the kill: the last checkpoint is that of step 12, of 10 steps an epoch."""
FRAMEWORKS = {
    "treadle": "Treadle",
    "lightning": "Lightning",
    "fabric": "Fabric",
    "accelerate": "Accelerate",
    "ignite": "Ignite",
}
NEEDS = {"lightning": "torchdata", "fabric": "torchdata"}
"""What a program imports besides its framework."""
NO_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


@dataclass(frozen=True)
class Ended:
    """How a program ended: its exit code, the digest that it printed, its last line of error."""

    code: int
    digest: str | None
    error: str


def run(program: str, directory: Path, **environment: str) -> Ended:
    """Run one of the programs in a process of its own; it goes on with what it finds in `directory`."""
    directory.mkdir(exist_ok=True)
    settings = {f"TRAINERS_{name.upper()}": value for name, value in environment.items()}
    done = subprocess.run(
        [sys.executable, str(PROGRAMS / f"with_{program}.py"), str(directory)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | settings,
        cwd=directory,
        capture_output=True,
        text=True,
    )
    digests = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("digest ")]
    errors = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return Ended(done.returncode, digests[-1] if digests else None, errors[-1] if errors else "")


def whole(program: str, directory: Path, name: str, **environment: str) -> str:
    """The digest of a run that nobody touches. Raises RuntimeError where it fails."""
    ended = run(program, directory / name, **environment)
    if ended.digest is None:
        raise RuntimeError(f"with_{program}.py failed: {ended.error}")
    return ended.digest


def resumed(program: str, directory: Path, name: str, **environment: str) -> Ended:
    """How the run ends that is killed in mid-epoch and started once more."""
    killed = run(program, directory / name, kill_at=str(KILL_AT), **environment)
    if killed.code != -9:
        raise RuntimeError(f"with_{program}.py was to be killed, and ended with {killed.code}: {killed.error}")
    return run(program, directory / name, **environment)


def verdict(wanted: str, ended: Ended) -> str:
    """What a resume came to."""
    if ended.digest is None:
        return "no: the resume fails"
    return "yes" if ended.digest == wanted else "no: other weights"


def code_lines(source: str) -> int:
    """Lines with code on them: no comments, no docstrings, nothing empty."""
    found: set[int] = set()
    statement_begins = True
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in NO_CODE:
            statement_begins |= token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
            continue
        if not (statement_begins and token.type == tokenize.STRING):
            found.update(range(token.start[0], token.end[0] + 1))
        statement_begins = False
    return len(found)


def lines_of_growing(program: str) -> int:
    """Lines with code that growing takes: by hand or, in Treadle, where the program with it differs from the other."""
    if program == "treadle":
        from_class = (PROGRAMS / "with_treadle_growing.py").read_text().partition("class Growing")[2].partition("\n")[2]
        return code_lines(inspect.cleandoc(from_class.partition("if __name__")[0]))
    source = (PROGRAMS / "problem.py").read_text()
    return code_lines(source[source.index("def grow_by_hand") : source.index("def report")])


def behaviour(program: str) -> tuple[dict[str, str], list[str]]:
    """A program's cells that do not depend on time, and the errors that its resumes ended with."""
    cells: dict[str, str] = {"lines of a known program": str(code_lines((PROGRAMS / f"with_{program}.py").read_text()))}
    growing = "treadle_growing" if program == "treadle" else program
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        wanted = whole(program, directory, "once")
        if whole(program, directory, "again") != wanted:
            raise RuntimeError(f"with_{program}.py does not repeat itself: nothing can be said of its resume")
        with_dropout = resumed(program, directory, "killed")
        cells["exact resume in mid-epoch"] = verdict(wanted, with_dropout)
        wanted = whole(program, directory, "plain", dropout="0")
        without = resumed(program, directory, "plain-killed", dropout="0")
        cells["the same without dropout"] = verdict(wanted, without)
        wanted = whole(growing, directory, "grown", grow="1")
        grown = resumed(growing, directory, "grown-killed", grow="1")
        cells["a parameter that grows"] = f"{lines_of_growing(program)} lines"
        cells["exact resume after it has grown"] = verdict(wanted, grown)
    failed = [ended.error for ended in (with_dropout, without, grown) if ended.digest is None]
    return cells, list(dict.fromkeys(failed))


def costs(programs: list[str], rounds: int) -> dict[str, dict[str, str]]:
    """What a step costs beyond the raw loop's, for each of the programs."""
    contestants = {program: Contestant(program, "bare") for program in programs}
    figures = compete("mlp", [*JUDGED, *(c for c in contestants.values() if c not in JUDGED)], [RAW], 1, rounds)
    return {
        program: {
            "us CPU per step beyond a raw loop's": f"{over(figures, contestant):+.0f}",
            "Python calls per step beyond a raw loop's": f"{calls(figures, contestant):+.0f}",
        }
        for program, contestant in contestants.items()
    }


def counted() -> dict[str, str]:
    """Treadle's calls alone, which are the same on every machine."""
    figures = compete("mlp", [RAW, TRAIN, Contestant("treadle", "bare")], [RAW], 1, 1)
    return {"Python calls per step beyond a raw loop's": f"{calls(figures, Contestant('treadle', 'bare')):+.0f}"}


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="Treadle alone, nothing that depends on time")
    parser.add_argument("--write", action="store_true", help=f"store the table in {RESULTS.name}")
    parser.add_argument("--only", nargs="*", choices=list(FRAMEWORKS)[1:], help="these besides Treadle")
    parser.add_argument("--rounds", type=int, default=15, help="timed segments of 100 steps (default 15)")
    options = parser.parse_args()
    wanted = [] if options.quick else list(FRAMEWORKS)[1:] if options.only is None else options.only
    programs = ["treadle", *filter(available, wanted)]
    found = {"treadle": counted()} if options.quick else costs(programs, options.rounds)
    notes = []
    for program in programs:
        cells, errors = behaviour(program)
        found[program] |= cells
        notes += [f"{FRAMEWORKS[program]}'s resume fails with: `{error}`" for error in errors]
        print(f"{FRAMEWORKS[program]}: {found[program]}", flush=True)
    rows = [[name, *(found[program][name] for program in programs)] for name in found["treadle"]]
    shown = table(["", *(FRAMEWORKS[program] for program in programs)], rows)
    print(f"\n{shown}\n", *notes, sep="\n")
    ours = found["treadle"]
    exact = [name for name in ours if name.startswith(("exact", "the same"))]
    judged = Gate("inexact resumes of Treadle", sum(ours[name] != "yes" for name in exact), 0)
    print(f"\n{table(Gate.HEAD, [judged.row()])}")
    if options.write:
        how = (__doc__ or "").split("\n\n", 1)[1].strip("\n")
        facts = machine([*dict.fromkeys(PACKAGES.values()), "torchdata"])
        told = ["# Treadle beside other trainers", how, facts, shown, *notes]
        RESULTS.write_text("\n\n".join(told) + "\n")
        print(f"written to {RESULTS}")
    return 0 if judged.held else 1


def available(framework: str) -> bool:
    """Whether what the framework's program imports is installed."""
    return installed(framework) and (framework not in NEEDS or importlib.util.find_spec(NEEDS[framework]) is not None)


if __name__ == "__main__":
    sys.exit(main())
