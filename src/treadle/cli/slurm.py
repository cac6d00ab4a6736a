"""`treadle slurm`: a batch script that trains, sweeps or goes on, on a cluster."""

from __future__ import annotations

import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from treadle.cli.common import Parser, shown
from treadle.cli.slurm_script import JOB_ID, NOTICE, Job, array_of, minutes_of, script
from treadle.errors import UsageError
from treadle.files import reason

EXAMPLES = """  treadle slurm image --time 4h
  treadle slurm image --time 4h --gpus 1 --cpus 8 --submit
  treadle slurm pix2pix --batch-size 16 --nodes 2 --gpus 4 --time 1d --submit
  treadle slurm image --time 4h --set max_steps=90000 --log tensorboard
  treadle slurm runs/image/v001 --time 4h             go on with a run
  treadle slurm image --search levels=8..16 --trials 40 --array 8 --time 2h
  treadle slurm runs/sweep-image --array 4            go on with a sweep
  treadle slurm image --before 'module load cuda' --sbatch=--constraint=a100

What is no option of this page is passed on to treadle train, to treadle sweep
where --search is given, to treadle resume for a run; it is checked now, and not
when the job begins.

A job saves and is requeued when its time is over or it is preempted, and goes
on with its own run: DIR/job-NUMBER/v001, where NUMBER is the job's. The same
script submitted twice trains two runs; with --run DIR/v001 it goes on with that
one. All jobs of an array share the trials of their sweep."""


def parser() -> Parser:
    """Return the parser of everything but what is passed on."""
    result = Parser(
        "slurm",
        "Write, and with --submit submit, a batch script for Slurm that trains a recipe, shares a sweep among jobs, or "
        "goes on with either.",
        EXAMPLES,
        usage="treadle slurm RECIPE|RUN|SWEEP [--nodes N] [--gpus N] [--cpus N]\n"
        "                     [--time 4h] [--partition NAME] [--array N] [--submit]\n"
        "                     [what treadle train, sweep or resume takes]",
    )
    add = result.add_argument
    add("--nodes", metavar="N", type=int, default=1, help="nodes (default: 1)")
    add("--gpus", metavar="N", type=int, default=0, help="GPUs on each node (default: none)")
    add("--processes", metavar="N", type=int, help="processes on each node that train together, of a sweep its "
        "workers (default: one for each GPU, else one)")  # fmt: skip
    add("--cpus", metavar="N", type=int, help="processors, and threads, for each process (default: the cluster's)")
    add("--mem", metavar="SIZE", help="memory on each node, as sbatch takes it: 32G")
    add("--time", metavar="TIME", help="the limit, after which it is requeued and goes on: 4h, 90m, 1d12h, 4:00:00 "
        "(default: the partition's)")  # fmt: skip
    add("--notice", metavar="SECONDS", type=int, default=NOTICE, help="how long before the limit it saves "
        f"(default: {NOTICE})")  # fmt: skip
    add("--partition", metavar="NAME", help="the partition (default: the cluster's)")
    add("--account", metavar="NAME", help="the account that pays")
    add("--qos", metavar="NAME", help="the quality of service")
    add("--name", metavar="NAME", help="the job's name (default: the recipe's)")
    add("--array", metavar="N", help="jobs that share a sweep's trials; 8%%2 are 8, of which 2 run at a time")
    add("--run", metavar="DIR", help="where the run, or the sweep, goes (default: runs/RECIPE, runs/sweep-RECIPE)")
    add("--before", metavar="LINE", action="append", default=[], help="a line of shell to begin with; may be repeated")
    add("--sbatch", metavar="OPTION", action="append", default=[], help="another option of sbatch; may be repeated")
    add("--script", metavar="FILE", help="where the script goes (default: slurm-001.sbatch and so on in DIR)")
    add("--submit", action="store_true", help="submit it, too")
    return result


@dataclass(frozen=True)
class Task:
    """What a job carries out.

    Attributes:
        command: the arguments of `treadle`.
        name: what the job is called where nobody says.
        folder: where the script and what is printed go.
        what: where to look for what comes of it, in words.
        workers: of a sweep, processes that share its trials; 0 where one run is trained.
    """

    command: Sequence[str]
    name: str
    folder: Path
    what: str
    workers: int = 0


def run(arguments: list[str]) -> int:
    """Write the script, and submit it where that is asked for; returns the exit code."""
    if not arguments or "-h" in arguments or "--help" in arguments:
        parser().print_help()
        return 0 if arguments else 2
    first, rest = arguments[0], arguments[1:]
    if first.startswith("-"):
        if not any(argument.partition("=")[0] == "--trainer" for argument in arguments):
            raise UsageError(f"treadle slurm: the recipe comes first: treadle slurm RECIPE {first} ...")
        first, rest = "", arguments
    options, passed = parser().parse_known_args(rest)
    _check(options)
    task = _task(first, passed, options)
    if options.array is not None and not task.workers:
        raise UsageError(
            "--array: its jobs share a sweep's trials, and here is one run: say what is searched "
            "(--search 'seed=0|1|2' --sampler grid trains it with three seeds)"
        )
    text = script(_job(task, options))
    try:
        path = _write(text, task.folder, options.script)
    except OSError as error:
        raise UsageError(f"cannot write {error.filename or task.folder}: {reason(error)} (--script)") from None
    print(f"script: {shown(path)}")
    if not options.submit:
        print(f"{task.what.replace(JOB_ID, 'NUMBER')}\nnext: sbatch {quote(shown(path))}")
        return 0
    number = _submit(path)
    print(f"job: {number}\n{task.what.replace(JOB_ID, number)}")
    prints = shown(task.folder.absolute() / f"slurm-{number}")
    print(f"it prints: {prints}{'_*' if options.array else ''}.out\nnext: squeue --jobs {number}")
    return 0


def _check(options: Namespace) -> None:
    for name, least in (("nodes", 1), ("gpus", 0), ("processes", 1), ("cpus", 1), ("notice", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UsageError(f"--{name} is {value}: expected at least {least}")
    if options.time is not None and minutes_of(options.time) * 60 <= options.notice:
        raise UsageError(
            f"--time is {options.time!r}, and the job saves {options.notice} s before it is over: give it more time, "
            "or less --notice"
        )
    if options.array is not None:
        array_of(options.array)
    for option in options.sbatch:
        if not option.startswith("-") or "\n" in option:
            raise UsageError(
                f"--sbatch is {option!r}: expected an option of sbatch, such as --sbatch=--constraint=a100"
            )
    if options.submit and shutil.which("sbatch") is None:
        raise UsageError(
            "--submit: there is no sbatch on this machine: submit from one that belongs to the cluster, or leave "
            "--submit out and take the script there"
        )


def _job(task: Task, options: Namespace) -> Job:
    return Job(
        command=[sys.executable, "-P", "-m", "treadle.cli", *task.command],
        name=options.name or task.name,
        directory=Path.cwd(),
        output=task.folder.absolute() / ("slurm-%A_%a.out" if options.array else "slurm-%j.out"),
        nodes=options.nodes,
        gpus=options.gpus,
        processes=1 if task.workers else _together(options),
        cpus=None if options.cpus is None else options.cpus * max(1, task.workers),
        threads=options.cpus,
        minutes=None if options.time is None else minutes_of(options.time),
        notice=options.notice,
        array=None if options.array is None else array_of(options.array),
        partition=options.partition,
        account=options.account,
        qos=options.qos,
        memory=options.mem,
        more=options.sbatch,
        before=options.before,
    )


def _together(options: Namespace) -> int:
    """The processes of each node."""
    return int(options.processes or options.gpus or 1)


# What is trained ------------------------------------------------------------------------------------------------------


def _task(first: str, passed: list[str], options: Namespace) -> Task:
    """What the job does, once all that can be wrong with it has been checked."""
    from treadle.runs.run import newest_run
    from treadle.sweeps.plan import is_sweep

    there = Path(first).expanduser()
    if first and is_sweep(there):
        return _sweep_further(there, passed, options)
    if any(argument.partition("=")[0] == "--search" for argument in passed):
        return _sweep(first, passed, options)
    if first and newest_run(there) is not None:
        return _resume(there, passed, options)
    return _train(first, passed, options)


def _train(first: str, passed: list[str], options: Namespace) -> Task:
    from treadle.cli import several, train
    from treadle.cli.sinks import sinks
    from treadle.cli.studio_flags import is_wanted
    from treadle.recipes.registry import load_recipe, recipe_of
    from treadle.recipes.scripts import load_trainer
    from treadle.runs.run import VERSION

    given, flags = train.parser().parse_known_args([first, *passed])
    if given.try_out or is_wanted(given):
        raise UsageError(
            "treadle slurm trains: --try is for this machine, and treadle studio RUN looks at it from here"
        )
    kind = None if given.trainer is None else load_trainer(given.trainer)
    recipe = load_recipe(first, kind) if kind is None or first else recipe_of(kind)
    recipe = train.resolved(recipe, first or f"--trainer {given.trainer}", given, flags)
    several.check(recipe.config, options.nodes * _together(options))
    sinks(given)
    wanted = Path(options.run or Path("runs") / recipe.name)
    named = VERSION.fullmatch(wanted.name) is not None
    folder = wanted.parent if named else wanted
    run = str(wanted if named else wanted / f"job-{JOB_ID}" / "v001")
    command = ["train", *([first] if first else []), *passed, "--run", run, "--resume", "auto"]
    return Task(command, recipe.name, folder, f"run: {run}")


def _resume(there: Path, passed: list[str], options: Namespace) -> Task:
    from treadle.cli import resume, several
    from treadle.cli.script import recipe_at
    from treadle.cli.sinks import sinks
    from treadle.runs.run import find_run

    directory = find_run(there)
    if options.run is not None:
        raise UsageError(f"--run is {directory} already: treadle slurm RECIPE --run DIR begins another one")
    given = resume.parser().parse_args([str(directory), *passed])
    recipe = recipe_at(directory, given).with_overrides(given.overrides)
    several.check(recipe.config, options.nodes * _together(options))
    sinks(given)
    path = directory.absolute()
    return Task(["resume", shown(path), *passed], path.parent.name, path.parent, f"run: {shown(path)}")


def _sweep(first: str, passed: list[str], options: Namespace) -> Task:
    """A sweep that is begun here, so that its jobs only have to find it."""
    from treadle.cli import sweep
    from treadle.recipes.scripts import load_trainer
    from treadle.sweeps.sweep import check_workers

    run = [] if options.run is None else ["--run", options.run]
    given = sweep.parser().parse_args([*([first] if first else []), *passed, *run])
    sweep.directory_of(given)
    check_workers(given.workers, given.log)
    _check_one_node(options)
    planned, _, _ = sweep.begin_as(given, None if given.trainer is None else load_trainer(given.trainer))
    return _sweeping(planned.path, given, options)


def _sweep_further(there: Path, passed: list[str], options: Namespace) -> Task:
    from treadle.cli import sweep
    from treadle.recipes.scripts import load_trainer
    from treadle.sweeps.beginning import go_on
    from treadle.sweeps.sweep import check_workers

    if options.run is not None:
        raise UsageError(f"--run is {there} already: treadle slurm RECIPE --search ... --run DIR begins another sweep")
    given = sweep.parser().parse_args([str(there), "--resume", *[each for each in passed if each != "--resume"]])
    sweep.directory_of(given)
    check_workers(given.workers, given.log)
    _check_one_node(options)
    go_on(there, given.trials, None if given.trainer is None else load_trainer(given.trainer))
    return _sweeping(there.absolute(), given, options)


def _sweeping(path: Path, given: Namespace, options: Namespace) -> Task:
    workers = options.processes or (given.workers if given.workers != 1 else options.gpus) or 1
    command = ["sweep", shown(path), "--resume", *(["--workers", str(workers)] if workers > 1 else [])]
    command += ["--trainer", given.trainer] if given.trainer else []
    command += ["--log", *given.log] if given.log else []
    return Task(command, path.name, path, f"sweep: {shown(path)}", workers)


def _check_one_node(options: Namespace) -> None:
    if options.nodes != 1:
        raise UsageError("--nodes: the trials of a sweep are trained on one each: --array N has N jobs share them")


# Writing and submitting -----------------------------------------------------------------------------------------------


def _write(text: str, folder: Path, wanted: str | None) -> Path:
    """Write the script; nothing that is there already is written over, unless it is the same."""
    folder.mkdir(parents=True, exist_ok=True)  # Slurm makes none, and a job without a place for its output fails
    if wanted is not None:
        path = Path(wanted).expanduser()
        if path.exists() and path.read_text() != text:
            raise UsageError(f"--script: another script is there, at {path}: give another name, or remove it")
        path.write_text(text)
        return path.absolute()
    number = 1
    while True:
        path = folder / f"slurm-{number:03d}.sbatch"
        try:
            with open(path, "x") as file:
                file.write(text)
            return path.absolute()
        except FileExistsError:
            number += 1


def _submit(path: Path) -> str:
    """Submit the script; returns the job's number. Raises UsageError with what sbatch has against it."""
    done = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line.removeprefix("sbatch: ").strip() for line in done.stderr.splitlines()]
        lines = [line.removeprefix("error: ").removeprefix("fatal: ").rstrip(".") for line in said if line]
        why = "; ".join(dict.fromkeys(lines)) or f"exit code {done.returncode}"
        raise UsageError(f"sbatch refused {shown(path)}: {why}")
    return done.stdout.strip().partition(";")[0]
