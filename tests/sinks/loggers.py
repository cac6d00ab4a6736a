"""Reads back, with each logging service's own tools, what it was told: `make test-loggers`.

    python tests/sinks/loggers.py                # a table; exit code 1 where a test fails or an SDK cannot be had
    python tests/sinks/loggers.py wandb --pin    # the newest that its extra allows, pinned anew in tests/sinks/pins

Each SDK has an environment of its own, `.venv-loggers/NAME`, with what its extra in pyproject.toml names, NumPy and
Pillow, pinned by `tests/sinks/pins/NAME.txt`: their requirements conflict, and only the process beside a run needs
them. Tests find these by TREADLE_<NAME>_PYTHON, as anybody's runs do. An environment is made once, and again when its
pins change.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ENVIRONMENTS = ROOT / ".venv-loggers"
NAMES = ("wandb", "comet", "mlflow", "trackio", "rerun")
BESIDE = ("numpy", "pillow")
"""What the process beside a run needs besides the SDK."""
FOR_TESTS = {"mlflow": ("flask", "flask-cors", "aiohttp", "pandas")}
"""What a service's own tools need besides, that read back what it was told: MLflow's server."""
INSTALLATIONS = 2
"""At a time."""
QUIET = ("--quiet", "--disable-pip-version-check", "--no-input")


@dataclass
class Logger:
    """One service: its environment, and what became of its tests."""

    name: str
    version: str = ""
    trouble: str = ""
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def python(self) -> Path:
        """Its environment's Python."""
        return ENVIRONMENTS / self.name / "bin" / "python"

    @property
    def pins(self) -> Path:
        """The file that pins what is in its environment."""
        return HERE / "pins" / f"{self.name}.txt"


def requirements(name: str) -> list[str]:
    """What its extra installs, and what its process and its tests need besides."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return [*extras[name], *BESIDE, *FOR_TESTS.get(name, ())]


def install(logger: Logger, until: float, *, pinned: bool = True) -> None:
    """Have its environment as its pins say, or of the newest, which is pinned then; `trouble`: why there is none."""
    stamp = ENVIRONMENTS / logger.name / ".installed-for"
    if not pinned or not stamp.is_file() or stamp.read_text() != made_of(logger):
        stamp.unlink(missing_ok=True)
        constraint = ["-c", str(logger.pins)] if pinned else []
        # No pip in it and nothing compiled in advance: an environment takes half the time.
        command = [*pip(logger), "install", "--no-compile", *QUIET, *constraint, *requirements(logger.name)]
        try:
            make = [sys.executable, "-m", "venv", "--clear", "--without-pip", logger.python.parents[1]]
            subprocess.run(make, check=True)
            done = subprocess.run(command, capture_output=True, text=True, timeout=max(1.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            logger.trouble = "not installed in time"
            return
        if done.returncode:
            logger.trouble = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
            return
        if not pinned:
            frozen = subprocess.run([*pip(logger), "freeze"], capture_output=True, text=True, check=True)
            logger.pins.write_text(frozen.stdout)
        stamp.write_text(made_of(logger))
    package = re.split(r"[^\w.-]", requirements(logger.name)[0])[0]
    ask = "import sys, importlib.metadata as m; print(m.version(sys.argv[1]))"
    logger.version = subprocess.run(
        [logger.python, "-c", ask, package], capture_output=True, text=True, check=True
    ).stdout.strip()


def made_of(logger: Logger) -> str:
    """What its environment depends on."""
    return f"{ROOT}\n{sys.version}\n{requirements(logger.name)}\n{logger.pins.read_text()}"


def pip(logger: Logger) -> list[str]:
    """The command that installs into its environment."""
    return [sys.executable, "-m", "pip", "--python", str(logger.python)]


def index_reachable() -> bool:
    """Whether the package index answers: an SDK that cannot be had from it is then a fault."""
    command = [sys.executable, "-m", "pip", "--timeout", "10", "--retries", "0", "download", *QUIET, "--no-deps"]
    with tempfile.TemporaryDirectory() as place:
        return subprocess.run([*command, "--dest", place, "packaging"], capture_output=True).returncode == 0


def test(loggers: Sequence[Logger]) -> int:
    """Run the tests that need these, and count what became of them; returns pytest's exit code."""
    theirs = re.compile(rf"(?<![a-z])({'|'.join(logger.name for logger in loggers)})(?![a-z])")
    files = [path for path in sorted(HERE.rglob("test_*.py")) if theirs.search(path.stem)]
    variables = {f"TREADLE_{logger.name.upper()}_PYTHON": str(logger.python) for logger in loggers}
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *map(str, files)]
        code = subprocess.run(command, cwd=ROOT, env=os.environ | variables).returncode
        if report.is_file():
            count(loggers, report)
    return code


def count(loggers: Sequence[Logger], report: Path) -> None:
    """Count the tests of each that passed, skipped and failed."""
    for case in ElementTree.parse(report).iter("testcase"):
        called = f"{case.get('classname')}.{case.get('name')}"
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        for logger in loggers:
            if re.search(rf"(?<![a-z]){logger.name}(?![a-z])", called):
                logger.counts[outcome] += 1


def table(loggers: Sequence[Logger]) -> str:
    """Service, SDK, tests."""
    rows = [("service", "SDK", "passed", "skipped", "failed", "")]
    for logger in loggers:
        counts = [str(logger.counts[outcome]) for outcome in ("passed", "skipped", "failed")]
        rows.append((logger.name, logger.version or "-", *counts, logger.trouble))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def verdict(loggers: Sequence[Logger], code: int, *, reachable: bool, lenient: bool) -> list[str]:
    """What is wrong, in lines; where there are none the tests hold. Installations are not judged where `lenient`."""
    wrong = [] if code == 0 else [f"pytest ended with {code}"]
    for logger in loggers:
        if logger.trouble and reachable and not lenient:
            wrong.append(f"{logger.name} cannot be installed: {logger.trouble}")
        elif not logger.trouble and not logger.counts["passed"]:
            wrong.append(f"{logger.name}: no test of it has run")
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Install, test, print the table; returns 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these of {', '.join(NAMES)}")
    parser.add_argument("--pin", action="store_true", help="install the newest, and write the pins anew")
    parser.add_argument("--lenient", action="store_true", help="an SDK that cannot be installed is said, not judged")
    parser.add_argument("--seconds", type=float, default=900.0, help="that all installations may take (default: 900)")
    options = parser.parse_args(arguments)
    unknown = sorted({*options.names} - {*NAMES})
    if unknown:
        parser.error(f"unknown {', '.join(unknown)}: expected some of {', '.join(NAMES)}")
    loggers = [Logger(name) for name in options.names or NAMES]
    with ThreadPoolExecutor(INSTALLATIONS) as pool:
        until = time.monotonic() + options.seconds
        list(pool.map(lambda logger: install(logger, until, pinned=not options.pin), loggers))
    there = [logger for logger in loggers if not logger.trouble]
    code = test(there) if there else 0
    print(table(loggers))
    reachable = len(there) == len(loggers) or index_reachable()
    for logger in loggers:
        if logger.trouble and (options.lenient or not reachable):
            why = "" if reachable else " (the package index cannot be reached)"
            print(f"NOT TESTED: {logger.name}, which could not be installed{why}: {logger.trouble}", file=sys.stderr)
    wrong = verdict(loggers, code, reachable=reachable, lenient=options.lenient)
    for line in wrong:
        print(f"make test-loggers: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
