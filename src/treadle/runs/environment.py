"""What a run ran on: versions, hardware, threads, git commit, command line."""

from __future__ import annotations

import os
import platform
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("treadle", "torch", "numpy", "numba", "safetensors", "scikit-image", "opencv-python-headless", "pillow")
"""Packages whose versions are recorded, where they are installed."""

_ROUNDING = ("torch", "numpy", "numba")

_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "PYTHONHASHSEED")


def describe_environment() -> dict[str, Any]:
    """What determines how a run behaves besides its config, as plain data. What cannot be found out is None."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        # As typed: also `-m module` and `-c`.
        "command": shlex.join([sys.executable, *(sys.orig_argv[1:] or sys.argv)]),
        "directory": os.getcwd(),
        "git": git_state(Path.cwd()),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name)) is not None},
        "hardware": {
            "host": socket.gethostname(),
            "system": platform.platform(),
            "cpu": cpu_model(),
            "cores": os.cpu_count(),
            "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "memory_bytes": _memory(),
            "gpus": _gpus(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,  # type: ignore[no-untyped-call]
        },
        "threads": {"torch": torch.get_num_threads(), "torch_interop": torch.get_num_interop_threads()},
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def numerics(environment: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What decides how the same program rounds: thread count, libraries, processor features, GPUs.

    Taken from `environment` (the content of an environment.json; empty for one that lacks it), or from this process.
    """
    if environment is None:
        packages: Mapping[str, Any] = {name: _version(name) for name in _ROUNDING}
        threads, instructions = torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
        gpus, cuda = _gpus(), torch.version.cuda
    elif not {"packages", "threads", "hardware"} <= environment.keys():
        return {}
    else:
        packages, hardware = environment["packages"], environment["hardware"]
        threads, instructions = environment["threads"].get("torch"), hardware.get("cpu_capability")
        gpus, cuda = hardware.get("gpus", []), hardware.get("cuda")
    found = {"torch threads": threads, "CPU instructions": instructions, "CUDA": cuda}
    found |= {name: packages.get(name) for name in _ROUNDING}
    return found | {"GPUs": ", ".join(gpu["name"] for gpu in gpus) or None}


def cpu_model() -> str | None:
    """The processor's own name, such as "Intel(R) Xeon(R) Gold 6248"."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or None


def git_state(directory: Path) -> dict[str, Any] | None:
    """Commit, branch and whether tracked files differ from it ("dirty"); None outside a repository or without git."""
    commit = _git(directory, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(directory, "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": commit,
        "branch": _git(directory, "rev-parse", "--abbrev-ref", "HEAD"),
        "dirty": None if changes is None else bool(changes),
    }


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _gpus() -> list[dict[str, Any]]:
    if not torch.cuda.is_available():
        return []
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in found]
