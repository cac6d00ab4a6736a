"""What the pages on tractography name is there, under that name."""

from __future__ import annotations

import re
from dataclasses import fields
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from treadle.cli import track, tracts_prepare, tracts_score
from treadle.tracts.autoencoder_trainer import LineAutoencoderConfig
from treadle.tracts.getters.settings import GETTERS
from treadle.tracts.settings import TractsConfig

ROOT = Path(__file__).parents[2]
SETTINGS = {field.name for field in fields(TractsConfig)}


def section(page: str, heading: str) -> str:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def column(text: str, number: int) -> list[str]:
    """The `names` in one cell of each row of the tables in a text."""
    cells = [re.split(r" \| ", row.strip("| "))[number] for row in re.findall(r"^\|.*`.*\|$", text, re.M)]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def options(run: object, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The options that a command's help names."""
    with pytest.raises(SystemExit):
        run(["--help"])  # type: ignore[operator]
    return set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))


def test_settings_and_getters_exist() -> None:
    named = set(column(section("tractography.md", "Settings"), 0))
    assert {"model", "pull", "generate_every", "track_seeds"} <= named
    assert named - set(GETTERS) - {"getter"} <= SETTINGS
    assert set(GETTERS) <= named


def test_getters_that_can_be_sampled_are_told() -> None:
    for row in re.findall(r"^\|.*\| (?:yes|no) \|$", section("tractography.md", "Settings"), re.M):
        for name in column(row, 0):
            assert (GETTERS[name].uniforms > 0) == row.endswith("| yes |"), name


def test_all_recipes_are_named() -> None:
    shipped = {
        file.name.removesuffix(".yaml")
        for file in files("treadle.recipes").iterdir()
        if file.name.endswith(".yaml")
        and yaml.safe_load(file.read_text(encoding="utf-8"))["trainer"].startswith("tracts")
    }
    named = set(re.findall(r"`(tracts(?:-\w+)?)`", section("tractography.md", "Settings")))
    assert named == shipped


def test_what_dwi_ml_calls_otherwise_is_a_setting_here() -> None:
    table = section("coming_from_dwi_ml.md", "Its options").split("Of tracking:")[0]
    words = {re.match(r"\w*", name)[0] for name in column(table, 1) if "-" not in name}  # type: ignore[index]
    values = {"lstm", "class", "sphere", "gaussian", "fisher", "l2", "mask", "prepare"}
    assert {"batch_units", "decoder_layers", "cache_mb", "min_improvement"} <= words
    assert words - values <= SETTINGS


def test_options_of_commands_exist(capsys: pytest.CaptureFixture[str]) -> None:
    track_options, prepare_options, score_options = (
        options(command.run, capsys) for command in (track, tracts_prepare, tracts_score)
    )
    table = section("coming_from_dwi_ml.md", "Its options").split("Of tracking:")[1]
    named = {word for cell in column(table, 1) for word in re.findall(r"--[a-z-]+", cell)}
    assert {"--per-voxel", "--forward-only", "--sample"} <= named <= track_options
    text = section("tractography.md", "Data of your own")
    lines = "\n".join(re.findall(r"^treadle track .*|^`track` .*", text, re.M))
    assert set(re.findall(r"--[a-z][a-z-]+", lines)) <= track_options | {"--help"}
    assert {"--invalid", "--allow-missing", "--overwrite"} <= prepare_options
    assert "--truth" in score_options


def test_an_autoencoder_makes_as_many_numbers_as_is_said() -> None:
    assert f"brings whole lines to {LineAutoencoderConfig().latent} numbers" in section("tractography.md", "Settings")
