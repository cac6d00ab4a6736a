"""The commands of docs/slurm.md are understood, and the script that it shows is the one that is written."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from treadle.cli.main import main
from treadle.recipes.registry import load_recipe

PAGE = (Path(__file__).parents[2] / "docs" / "slurm.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
SCRIPT, _ = re.findall(r"```bash\n(.*?)```", PAGE, re.S)


def test_its_commands_write_scripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    with load_recipe("image").with_settings({"max_steps": 1}).build(run_dir="runs/image/job-4711/v001") as trainer:
        trainer.train()
    assert len(COMMANDS) == 8
    for command in COMMANDS:
        assert main([word for word in shlex.split(command)[1:] if word != "--submit"]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert said.count("next: sbatch ") == len(COMMANDS)
    text = Path("runs/image/slurm-001.sbatch").read_text()
    here = {str(Path.cwd()): "/home/ada/fits", sys.executable: "/home/ada/venv/bin/python"}
    for ours, theirs in here.items():
        text = text.replace(ours, theirs)
    assert text == SCRIPT
