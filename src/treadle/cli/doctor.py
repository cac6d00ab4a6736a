"""`treadle doctor`: what works on this machine, and what to do about the rest."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Literal

from treadle.cli.common import Parser, show
from treadle.errors import one_line

EXAMPLES = """  treadle doctor"""

PURPOSE = {
    "fields": "pictures: the sample photograph, 16 bit and EXR files",
    "gans": "image translation: similarity (SSIM) in the metrics",
    "video": "MP4 files",
    "onnx": "treadle export --onnx",
    "sweep": "treadle sweep",
    "dev": "make test",
}
"""What each extra is for; the packages in it are read from Treadle's own metadata."""

VISDOM = "pip install 'setuptools<80' wheel, then pip install --no-build-isolation visdom 'tornado<6.6'"
"""How its server is installed: `pip install 'treadle[visdom]'` alone does not get it."""

ASK = "import sys; from importlib.metadata import distributions as d; print(*{f'{x.name}={x.version}' for x in d()})"
"""What another Python is asked: the versions of all that is installed there."""
ANSWER_SECONDS = 20.0

MINIMUM_FREE = 1_000_000_000
"""Bytes below which a disk is called nearly full."""


@dataclass(frozen=True)
class Check:
    """One line of the table: "failed" makes the command return 1, "note" warns, what is "missing" is optional."""

    group: str
    name: str
    found: str
    state: Literal["ok", "note", "none", "missing", "failed"] = "ok"


def run(arguments: list[str]) -> int:
    """Print the table; returns 1 where something that Treadle needs does not work."""
    parser = Parser("doctor", "What works on this machine: versions, devices, compilers, extras, folders.", EXAMPLES)
    parser.add_argument("--run", metavar="DIR", default="runs", help="where runs will be written (default: runs)")
    options = parser.parse_args(arguments)
    checks: list[Check] = []
    for examine in (_versions, _devices, _compilers, _extras, _loggers, lambda: _folders(Path(options.run))):
        checks += examine()
    group = ""
    rows = []
    for check in checks:
        rows.append((check.group if check.group != group else "", check.name, check.state, check.found))
        group = check.group
    show(["", "what", "state", "found"], rows)
    failed = [check.name for check in checks if check.state == "failed"]
    print(f"does not work: {', '.join(failed)}" if failed else "all that Treadle needs works here")
    return 1 if failed else 0


def _versions() -> Iterator[Check]:
    yield Check("versions", "treadle", _version("treadle") or "not installed: run it from an environment (make env)")
    yield Check("versions", "Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}")
    for name, minimum in requirements(None):
        yield _package("versions", name, minimum, needed=True)


def _devices() -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        import torch
    except Exception as error:
        yield Check("devices", "torch", f"cannot be imported: {one_line(error)}", "failed")
        return
    yield Check("devices", "CPU", f"{cores} cores; torch uses {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            yield Check("devices", f"cuda:{index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    elif torch.version.cuda is None:
        yield Check("devices", "GPU", "none: this torch is a build without CUDA", "none")
    else:
        yield Check("devices", "GPU", f"none found by CUDA {torch.version.cuda}", "none")


def _compilers() -> Iterator[Check]:
    try:
        yield Check("compilers", "Numba", _compile_with_numba())
    except Exception as error:  # whatever it is, the table says it
        yield Check("compilers", "Numba", one_line(error), "failed")
    compiler = next(
        (name for name in (os.environ.get("CC", ""), "cc", "gcc", "clang") if name and shutil.which(name)), ""
    )
    if compiler:
        yield Check("compilers", "C compiler", str(shutil.which(compiler)))
    else:
        yield Check("compilers", "C compiler", "none; only torch.compile would use it", "missing")


def _extras() -> Iterator[Check]:
    for extra in PURPOSE:
        lacking = []
        for name, minimum in requirements(extra):
            if _package("", name, minimum, needed=False).state != "ok":
                lacking.append(name)
        if lacking:
            found = f"lacks {', '.join(lacking)}: pip install 'treadle[{extra}]' (for {PURPOSE[extra]})"
            yield Check("extras", extra, found, "missing")
        else:
            versions = [f"{name} {_version(name)}" for name, _ in requirements(extra)]
            yield Check("extras", extra, ", ".join(versions) if extra != "dev" else f"all {len(versions)} packages")


def _loggers() -> Iterator[Check]:
    """What `--log NAME` can reach: the package of each, and the Python that it would run in."""
    from treadle.sinks.table import SINKS, descriptions

    for name, text in descriptions().items():
        if name == "visdom":
            server = _version("visdom")
            there = f"visdom {server}" if server else f"lacks visdom: {VISDOM}"
            yield Check("loggers", name, f"{text}; one to run here: {there}")
        elif name not in SINKS:
            yield Check("loggers", name, text)  # a third party's: where it comes from
        elif name != "console":
            check = _logger(name, os.environ.get(f"TREADLE_{name.upper()}_PYTHON"))
            yield replace(check, found=f"{text}; {check.found}")


def _logger(name: str, python: str | None) -> Check:
    """A logger of ours whose package, where it needs any, is in this Python or in `python`."""
    from treadle.sinks.table import sink_class

    needed = requirements(name)
    if not needed and (package := getattr(sink_class(name), "package", None)):
        needed = [(package, "0")]  # the metadata are older than the sources
    if not needed:
        return Check("loggers", name, "needs no package")
    variable = f"TREADLE_{name.upper()}_PYTHON"
    if python is None:
        installed = {_normal(package): version for package, _ in needed if (version := _version(package)) is not None}
    else:
        needed += [beside for beside in requirements(None) if beside[0] in ("numpy", "pillow")]
        try:
            installed = _installed(python)
        except (OSError, subprocess.SubprocessError) as error:
            return Check("loggers", name, f"{variable}={python} cannot be run: {one_line(error)}", "note")
    lacking = [
        f"{package}>={minimum}" if minimum != "0" else package
        for package, minimum in needed
        if _numbers(installed.get(_normal(package), "")) < max(_numbers(minimum), (0,))
    ]
    if lacking and python is None:
        other = "" if name == "tensorboard" else f", or {variable}=PYTHON of an environment that has it"
        return Check("loggers", name, f"lacks {', '.join(lacking)}: pip install 'treadle[{name}]'{other}", "missing")
    if lacking:
        remedy = f"{python} -m pip install {' '.join(map(repr, lacking))}"
        return Check("loggers", name, f"{variable}={python} lacks {', '.join(lacking)}: {remedy}", "missing")
    sdk = needed[0][0]
    where = "in this Python" if python is None else f"in {python} ({variable})"
    return Check("loggers", name, f"{sdk} {installed[_normal(sdk)]}, {where}")


def _installed(python: str) -> dict[str, str]:
    """The versions of what is installed for another Python. Raises OSError or SubprocessError where it does not run."""
    done = subprocess.run([python, "-P", "-c", ASK], capture_output=True, text=True, check=True, timeout=ANSWER_SECONDS)
    return {_normal(name): version for name, _, version in (pair.partition("=") for pair in done.stdout.split())}


def _normal(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def _folders(runs: Path) -> Iterator[Check]:
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    cache = Path(chosen or Path(__file__).parent.parent / "kernels" / "__pycache__")
    # Numba falls back on a folder of the user's when its first choice cannot be written: slower once, nothing more.
    yield _folder("kernel cache", cache, "failed" if chosen else "note")
    yield _folder("runs", runs.absolute(), "failed")
    yield _folder("temporary", Path(tempfile.gettempdir()), "failed")


def requirements(extra: str | None) -> list[tuple[str, str]]:
    """Return (package, lowest version) of Treadle's own requirements, or of one of its extras."""
    try:
        lines = metadata.requires("treadle") or []
    except metadata.PackageNotFoundError:
        return []
    found = []
    for line in lines:
        requirement, _, marker = line.partition(";")
        named = re.search(r"extra == ['\"](.+?)['\"]", marker)
        match = re.match(r"\s*([\w.-]+)\s*(?:>=\s*([\d.]+))?", requirement)
        if match and (named[1] if named else None) == extra:
            found.append((match[1], match[2] or "0"))
    return found


def _package(group: str, name: str, minimum: str, *, needed: bool) -> Check:
    version = _version(name)
    if version is None:
        return Check(group, name, f"not installed, {minimum} or later is needed", "failed" if needed else "missing")
    if _numbers(version) < _numbers(minimum):
        return Check(group, name, f"{version}, but {minimum} or later is needed", "failed" if needed else "missing")
    return Check(group, name, version)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def _compile_with_numba() -> str:
    import numba
    import numpy as np

    @numba.njit(parallel=True)
    def double(values: np.ndarray) -> np.ndarray:
        result = np.empty_like(values)
        for i in numba.prange(values.size):
            result[i] = 2 * values[i]
        return result

    if double(np.arange(100.0)).sum() != 9900.0:
        raise ArithmeticError("a compiled loop gives a wrong sum")
    return f"compiles and runs; threads by {numba.threading_layer()}"  # type: ignore[attr-defined]


def _folder(name: str, path: Path, otherwise: Literal["note", "failed"]) -> Check:
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            free = shutil.disk_usage(existing).free
    except OSError as error:
        return Check("folders", name, f"{path} cannot be written: {error.strerror or error}", otherwise)
    if free < MINIMUM_FREE:
        return Check("folders", name, f"{path}: only {free / 1e6:.0f} MB free", "note")
    return Check("folders", name, f"{path}, {free / 1e9:.0f} GB free")
