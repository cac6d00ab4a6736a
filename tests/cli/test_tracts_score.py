import json
from pathlib import Path

import numpy as np
import pytest

from treadle.cli.main import main
from treadle.tracts.files import read_streamlines, write_streamlines
from treadle.tracts.phantom import Phantom, make_phantom
from treadle.tracts.phantom_files import write_phantom
from treadle.tracts.streamlines import Streamlines


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(0, lines=40)


@pytest.fixture(scope="module")
def truth(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("phantom")
    write_phantom(phantom, directory)
    return directory


def tracks(phantom: Phantom, path: Path) -> Path:
    """The lines of two bundles, and halves of the third's."""
    half = phantom.bundles["helix"]
    halves = Streamlines.of([half[index][: len(half[index]) // 2] for index in range(10)])
    write_streamlines(
        path, Streamlines.concatenate([phantom.bundles["arc"], phantom.bundles["straight"], halves]), phantom.space
    )
    return path


@pytest.mark.parametrize("ending", [".trk", ".tck"])
def test_scores_as_table_json_and_page(
    ending: str, phantom: Phantom, truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tracks(phantom, tmp_path / f"tracks{ending}")
    assert main(["tracts", "score", str(path), "--truth", str(truth), "--segmented"]) == 0
    printed = capsys.readouterr().out
    assert "90 streamlines: 80 VS (88.9%), 0 IC (0.0%), 10 NC (11.1%)" in printed
    assert "2 of 3 bundles found, 0 invalid ones" in printed and "helix" in printed
    out = tmp_path / "tracks-scores"
    results = json.loads((out / "results.json").read_text())
    assert (results["VS"], results["NC"], results["bundle_wise"]["arc"]["VS"]) == (80, 10, 40)
    assert 0.5 < results["bundle_wise"]["arc"]["OL"] < 1 and results["bundle_wise"]["helix"]["OL"] == 0
    assert "helix" in (out / "table.csv").read_text() and "mean_OL" in (out / "index.html").read_text()
    assert len(list((out / "pictures").glob("*.png"))) == 3
    segmented, _ = read_streamlines(out / "segmented_VB" / "arc_VS.trk")
    assert np.abs(segmented.points - phantom.bundles["arc"].points).max() < 1e-4
    assert len(read_streamlines(out / "NC.trk")[0]) == 10


def test_what_is_wrong_is_one_line(
    phantom: Phantom, truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tracks(phantom, tmp_path / "tracks.trk"))
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments, message in (
        ([path, "--truth", str(empty)], "has 0 JSON files"),
        ([path, "--truth", str(truth / "nothing.json")], "no such file"),
        ([str(truth / "mask.nii.gz"), "--truth", str(truth)], "expected streamlines"),
        ([path, "--truth", str(truth), "--dilate-ends", "-1"], "--dilate-ends -1"),
        ([path, "--truth", str(truth), "--out", str(tmp_path / "a" / "b")], "there is no directory"),
        ([path], "--truth"),
    ):
        assert main(["tracts", "score", *arguments]) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1
