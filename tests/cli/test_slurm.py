"""`treadle slurm`, as typed and as printed; on a real Slurm it is tested by tests/slurm/check.py."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from treadle.sweeps.plan import is_sweep

SBATCH = """#!{python}
import json, sys
if "refuse" in open(sys.argv[-1]).read():
    sys.exit("sbatch: error: invalid partition specified: refuse\\nsbatch: error: Batch job submission failed")
json.dump(sys.argv[1:], open("submitted", "w"))
print("4711;cluster")
"""


@pytest.fixture
def sbatch(line: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for Slurm's command, which refuses the partition "refuse"."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sbatch").write_text(SBATCH.format(python=sys.executable))
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")


def command(path: str) -> list[str]:
    """What the job of a script carries out, after `treadle`."""
    (line,) = re.findall(r"^.* -m treadle\.cli (.*) &$", Path(path).read_text(), re.M)
    return shlex.split(line)


def test_it_writes_a_script_and_says_what_comes_next(treadle: Any, line: None) -> None:
    assert treadle("slurm", "line", "--time", "4h", "--gpus", "1", "--cpus", "8", "--set", "rate=0.2", "slope=2") == 0
    assert treadle.out == (
        "script: runs/line/slurm-001.sbatch\nrun: runs/line/job-NUMBER/v001\nnext: sbatch runs/line/slurm-001.sbatch\n"
    )
    assert command("runs/line/slurm-001.sbatch") == [
        "train", "line", "--set", "rate=0.2", "slope=2", "--run", "runs/line/job-$SLURM_JOB_ID/v001", "--resume", "auto"
    ]  # fmt: skip
    text = Path("runs/line/slurm-001.sbatch").read_text()
    assert f"#SBATCH --chdir={Path.cwd()}\n#SBATCH --output={Path.cwd()}/runs/line/slurm-%j.out\n" in text
    assert f"\n{sys.executable} -P -m treadle.cli train " in text
    assert "--gpus-per-node=1" in text and "--cpus-per-task=8" in text and "OMP_NUM_THREADS=8" in text
    assert treadle("slurm", "line", "--max-steps", "9", "--gpus", "2") == 0  # a second one is another file
    assert "runs/line/slurm-002.sbatch" in treadle.out
    assert "--ntasks-per-node=2" in Path("runs/line/slurm-002.sbatch").read_text()


def test_a_version_that_is_named_is_the_run(treadle: Any, line: None) -> None:
    assert treadle("slurm", "line", "--run", "mine/v001", "--script", "job.sh") == 0
    assert command("job.sh")[-4:] == ["--run", "mine/v001", "--resume", "auto"]
    assert treadle("slurm", "line", "--run", "mine/v001", "--script", "job.sh") == 0  # the same once more
    assert treadle("slurm", "line", "--run", "mine/v002", "--script", "job.sh") == 2
    assert treadle.err == "treadle: --script: another script is there, at job.sh: give another name, or remove it\n"


def test_it_submits(treadle: Any, sbatch: None) -> None:
    assert treadle("slurm", "line", "--submit") == 0
    assert treadle.out.splitlines()[1:] == [
        "job: 4711",
        "run: runs/line/job-4711/v001",
        "it prints: runs/line/slurm-4711.out",
        "next: squeue --jobs 4711",
    ]
    assert json.loads(Path("submitted").read_text()) == [
        "--parsable",
        str(Path("runs/line/slurm-001.sbatch").absolute()),
    ]
    assert treadle("slurm", "line", "--partition", "refuse", "--submit") == 2
    assert treadle.err == (
        "treadle: sbatch refused runs/line/slurm-002.sbatch: invalid partition specified: refuse; Batch job submission "
        "failed\n"
    )


def test_a_run_goes_on(treadle: Any, line: None) -> None:
    assert treadle("train", "line", "--run", "runs/line") == 0
    assert treadle("slurm", "runs/line", "--set", "max_steps=40") == 0
    assert treadle.out.startswith("script: runs/line/slurm-001.sbatch\nrun: runs/line/v001\n")
    there = command("runs/line/slurm-001.sbatch")
    assert there == ["resume", "runs/line/v001", "--set", "max_steps=40"]
    assert treadle(*there) == 0 and "finished: step 40" in treadle.out
    assert (
        treadle("slurm", "runs/line", "--run", "runs/other") == 2 and "--run is runs/line/v001 already" in treadle.err
    )
    assert treadle("slurm", "runs/line", "--set", "max_step=40") == 2 and "did you mean 'max_steps'?" in treadle.err


def test_an_array_shares_a_sweep(treadle: Any, line: None) -> None:
    pytest.importorskip("optuna")
    search = ("--search", "rate=log:0.01..0.3", "--trials", "2", "--sampler", "random", "--run", "s")
    assert treadle("slurm", "line", *search, "--array", "4%2", "--processes", "2", "--cpus", "3") == 0
    assert treadle.out == "script: s/slurm-001.sbatch\nsweep: s\nnext: sbatch s/slurm-001.sbatch\n" and is_sweep(
        Path("s")
    )
    text = Path("s/slurm-001.sbatch").read_text()
    assert "--array=1-4%2\n" in text and "slurm-%A_%a.out\n" in text and "--ntasks-per-node=1\n" in text
    assert "--cpus-per-task=6\n" in text and "OMP_NUM_THREADS=3" in text and "WORLD_SIZE" not in text
    assert command("s/slurm-001.sbatch") == ["sweep", "s", "--resume", "--workers", "2"]
    assert treadle("slurm", "s", "--trials", "1") == 0  # and another job for the same one
    there = command("s/slurm-002.sbatch")
    assert there == ["sweep", "s", "--resume"]
    assert treadle(*there) == 0 and "sweep: 1 trials by random into s\n" in treadle.out
    assert treadle("slurm", "s", "--nodes", "2") == 2 and "--array N has N jobs share them" in treadle.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("line", "--time", "4x"), "--time is '4x': expected a time above 0, such as 4h"),
        (("line", "--time", "2m"), "--time is '2m', and the job saves 120 s before it is over"),
        (("line", "--nodes", "0"), "--nodes is 0: expected at least 1"),
        (("line", "--gpus", "-1"), "--gpus is -1: expected at least 0"),
        (("line", "--array", "2"), "--array: its jobs share a sweep's trials, and here is one run"),
        (("line", "--search", "rate=0.1..1", "--array", "x"), "--array is 'x': expected how many jobs"),
        (("line", "--tme", "4h"), "unknown flag --tme"),
        (("line", "--set", "rat=1"), "did you mean 'rate'?"),
        (("lime",), "did you mean 'line'?"),
        (("line", "--data", "nowhere.txt"), "nowhere.txt"),
        (("line", "--log", "nothing"), "unknown sink 'nothing'"),
        (("line", "--try"), "--try is for this machine"),
        (("line", "--sbatch", "constraint=a100"), "expected an option of sbatch"),
        (("line", "--submit"), "--submit: there is no sbatch on this machine"),
        (("--time", "4h"), "the recipe comes first"),
        (("line", "--nodes", "2", "--gpus", "50"), "batch_size is 32, and 100 processes are to share each batch"),
        (("line", "--name", "a\nb"), "--name is 'a\\nb': expected a line of text"),
        (("line", "--partition", ""), "--partition is '': expected a line of text"),
        (("line", "--run", "a\\b"), "has a backslash: Slurm cannot write there what a job prints (--run)"),
        (("line", "--script", "no/where.sh"), "cannot write no/where.sh: "),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    treadle: Any, line: None, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert treadle("slurm", *arguments) == 2
    assert words in treadle.err and treadle.err.count("\n") == 1
    assert not list(Path().rglob("*.sbatch")) and not list(Path().rglob("sweep.yaml"))


def test_without_anything_it_explains_itself(treadle: Any) -> None:
    assert treadle("slurm") == 2 and treadle.out.startswith("usage: treadle slurm RECIPE|RUN|SWEEP")
