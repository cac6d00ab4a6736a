import json
from pathlib import Path

import numpy as np
import pytest

from treadle.cli.main import main
from treadle.testing import Line, line_data
from treadle.tracts.files import read_streamlines
from treadle.tracts.phantom import Phantom, make_phantom
from treadle.tracts.space import Space
from treadle.tracts.volumes import write_volume

PROGRAM = """
from types import SimpleNamespace
import torch
from treadle.testing import Line
from treadle.tracts.getters.settings import GetterSettings
from treadle.tracts.models.direction_model import build_direction_model
from treadle.tracts.models.settings import ModelSettings

class Line(Line):
    @classmethod
    def load_model(cls, run):
        torch.manual_seed(0)
        model = build_direction_model(ModelSettings(), GetterSettings(getter="fisher"), 28)
        return SimpleNamespace(model=model, offsets=lambda space: None, group="input", step=1.5)
"""
"""A trainer whose model is a network with fresh weights: it goes somewhere, and that is enough."""


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(0, lines=10)


@pytest.fixture(scope="module")
def place(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("track")
    (root / "prog.py").write_text(PROGRAM)
    Line(data=line_data(), run_dir=root / "run", max_steps=1).train()
    write_volume(root / "input.nii.gz", phantom.subject().volume("input"), phantom.space)
    write_volume(root / "mask.nii.gz", phantom.mask, phantom.space)
    write_volume(root / "few.nii.gz", phantom.crossing, phantom.space)
    return root


def track(place: Path, *more: str, volume: str = "input.nii.gz") -> int:
    trainer = ["--trainer", f"{place / 'prog.py'}:Line"]
    return main(
        ["track", str(place / "run"), str(place / volume), "--mask", str(place / "mask.nii.gz"), *trainer, *more]
    )


LOOSE = ("--theta", "180", "--min-length", "0")


@pytest.mark.parametrize("ending", [".trk", ".tck", ".trx"])
def test_a_volume_is_tracked_into_a_file(
    ending: str, phantom: Phantom, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"tracks{ending}"
    seeds = ["--seeds", str(place / "few.nii.gz"), "--total", "40"]
    saved = ["--save-seeds"] if ending != ".tck" else []
    assert track(place, "--out", str(out), *LOOSE, *seeds, *saved) == 0
    printed = capsys.readouterr().out
    assert f"{out}: 40 streamlines" in printed and "stopped by mask" in printed
    lines, space = read_streamlines(out, phantom.space)
    assert len(lines) == 40 and space.same(phantom.space)
    inside = phantom.mask[tuple(np.clip(lines.points, 0, [23.99, 23.99, 11.99]).astype(int).T)]
    assert inside.mean() > 0.999  # rounding in the file may carry a point over a voxel's side
    steps = np.linalg.norm(np.diff(lines[0], axis=0) * 2, axis=1)
    assert np.allclose(steps, 1.5, atol=1e-3)  # the step of the training
    if saved:
        seeds_there = lines.per_line["seeds"]
        assert phantom.crossing[tuple(seeds_there.astype(int).T)].all()
    assert not (tmp_path / f"tracks{ending}.parts").exists()


def test_sampled_lines_differ_by_seed_alone(place: Path, tmp_path: Path) -> None:
    files = []
    for number, seed in enumerate((1, 1, 2)):
        out = tmp_path / f"{number}.trk"
        settings = ["--sample", "--total", "20", "--seed", str(seed), "--batch", str(7 * number + 3)]
        assert track(place, "--out", str(out), *LOOSE, *settings) == 0
        files.append(out.read_bytes())
    assert files[0] == files[1] != files[2]


def test_prepared_data_will_do_and_masks_may_be_in_it(phantom: Phantom, place: Path, tmp_path: Path) -> None:
    from treadle.tracts.prepared_writer import write_prepared
    from treadle.tracts.subject import MemorySubject, TractData

    values = phantom.subject().volume("input")
    volumes = {"input": (values, "sh"), "wm": (phantom.mask[..., None].astype(np.float32), "")}
    subjects = tuple(MemorySubject(name, phantom.space, volumes) for name in ("sub-01", "sub-02"))
    prepared = tmp_path / "data.h5"
    write_prepared(prepared, TractData(subjects))
    trainer = ["--trainer", f"{place / 'prog.py'}:Line"]
    out = tmp_path / "tracks.trk"
    base = [
        "track",
        str(place / "run"),
        str(prepared),
        "--mask",
        "wm",
        "--out",
        str(out),
        "--total",
        "9",
        *LOOSE,
        *trainer,
    ]
    assert main([*base, "--subject", "sub-02"]) == 0
    assert len(read_streamlines(out)[0]) == 9
    assert main(base) == 2 and main([*base, "--subject", "sub-3"]) == 2
    assert main([*base, "--subject", "sub-01", "--volume", "wm"]) == 2  # one feature, not 28


def test_parts_of_another_tracking_are_refused(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tracks.trk"
    parts = tmp_path / "tracks.trk.parts"
    parts.mkdir()
    (parts / "tracking.json").write_text(json.dumps({"seeds": 3}))
    assert track(place, "--out", str(out), "--total", "5", *LOOSE) == 2
    assert "another tracking" in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--out", "tracks.txt"], "ends in .trk, .tck or .trx"),
        (["--out", "nowhere/tracks.trk"], "there is no directory"),
        (["--theta", "0"], "theta"),
        (["--total", "0"], "total"),
        (["--subject", "sub-01"], "--subject has no meaning"),
        (["--seeds", "missing.nii.gz"], "--seeds missing.nii.gz: no such file"),
        (["--total", "5", "--per-voxel", "1"], "not allowed with"),
        (["--min-length", "10", "--max-length", "5"], "shortest"),
    ],
)
def test_what_is_wrong_is_one_line(
    more: list[str], message: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert track(place, *more) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_masks_and_volumes_that_do_not_fit(
    phantom: Phantom, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "tracks.trk")]
    moved = Space(np.eye(4), phantom.space.shape)
    write_volume(tmp_path / "moved.nii.gz", phantom.mask, moved)
    assert track(place, *out, "--seeds", str(tmp_path / "moved.nii.gz")) == 2
    assert "another grid" in capsys.readouterr().err
    write_volume(tmp_path / "none.nii.gz", np.zeros(phantom.space.shape), phantom.space)
    assert track(place, *out, "--seeds", str(tmp_path / "none.nii.gz")) == 2
    assert "is empty" in capsys.readouterr().err
    assert track(place, *out, volume="mask.nii.gz") == 2
    assert "1 features" in capsys.readouterr().err
