"""dwi_ml's config.json: what it may say, and how what it may not is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from treadle.errors import UsageError
from treadle.tracts.prepare_config import DwiSource, LinesGroup, VolumeGroup, parse_config, read_config, read_subjects

# As dwi_ml's documentation has it.
DOCUMENTED = {
    "input": {
        "type": "volume",
        "files": ["dwi/dwi.nii.gz", "anat/t1.nii.gz", "dwi/*__dwi.nii.gz"],
        "standardization": "all",
        "std_mask": ["masks/some_mask.nii.gz"],
    },
    "target": {
        "type": "streamlines",
        "files": ["tractograms/bundle1.trk", "tractograms/*__wholebrain.trk"],
        "connectivity_matrix": "my_file.npy",
        "connectivity_nb_blocs": 6,
        "dps_keys": ["dps1", "dps2"],
    },
    "bad_streamlines": {"type": "streamlines", "files": ["bad_tractograms/*"], "dps_keys": "mean_color_dps"},
    "wm_mask": {"type": "volume", "files": "masks/wm_mask.nii.gz"},
}


def test_the_documented_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(DOCUMENTED))
    found = read_config(tmp_path / "config.json")
    assert found.volumes == (
        VolumeGroup("input", ("dwi/dwi.nii.gz", "anat/t1.nii.gz", "dwi/*__dwi.nii.gz"), None, "all",
                    ("masks/some_mask.nii.gz",)),
        VolumeGroup("wm_mask", ("masks/wm_mask.nii.gz",)),
    )  # fmt: skip
    target, bad = found.lines
    assert target.blocs == (6, 6, 6) and target.connectivity_matrix == "my_file.npy" and target.labels == ""
    assert target.dps_keys == ("dps1", "dps2")
    assert bad == LinesGroup("bad_streamlines", ("bad_tractograms/*",), ("mean_color_dps",))
    assert found.text == DOCUMENTED


def test_volumes_made_from_a_scan() -> None:
    fsl = {"type": "volume", "dwi": "d.nii", "bval": "b", "bvec": "v"}
    found = parse_config(
        {
            "a": {**fsl, "as": "sh"},
            "b": {**fsl, "as": "sh", "order": 8, "shell": 1000, "mask": "m.nii"},
            "c": {"type": "volume", "dwi": "d.nii", "gradients": "g.b", "as": "tensor", "normalised": False},
            "d": {**fsl, "as": "dwi", "standardization": "independent"},
        }
    ).volumes
    assert [group.source for group in found] == [
        DwiSource("d.nii", ("b", "v"), "sh"),
        DwiSource("d.nii", ("b", "v"), "sh", 8, 1000, mask=("m.nii",)),
        DwiSource("d.nii", ("g.b",), "tensor", normalised=False),
        DwiSource("d.nii", ("b", "v"), "dwi"),
    ]
    assert [group.standardization for group in found] == ["none", "none", "none", "independent"]


V: dict[str, Any] = {"type": "volume", "files": ["a.nii"]}
L: dict[str, Any] = {"type": "streamlines", "files": ["a.trk"]}
D: dict[str, Any] = {"type": "volume", "dwi": "a.nii", "bval": "b", "bvec": "v", "as": "sh"}


@pytest.mark.parametrize(
    ("group", "said"),
    [
        ({"files": ["a.nii"]}, "'g' has no 'type'"),
        ({"type": "volumes", "files": []}, "type is .volumes.: expected one of volume, streamlines; did you mean"),
        ({"type": "volume"}, "'g' has no 'files'"),
        ({"type": "volume", "file": ["a.nii"]}, r"'g' has no 'files' \(it has 'file'\)"),
        ({**V, "files": []}, r"files is \[\]: expected one text or more"),
        ({**V, "files": [3]}, r"files is \[3\]: expected one text or a list of texts"),
        ({**V, "standardisation": "all"}, "unknown key 'standardisation'; did you mean 'standardization'"),
        ({**V, "standardization": "each"}, "expected one of none, all, independent, per_file"),
        ({**V, "dps_keys": ["a"]}, "unknown key 'dps_keys'"),
        ({**V, "bval": "b"}, "unknown key 'bval'"),
        ({**L, "std_mask": "m"}, "unknown key 'std_mask'"),
        ({**L, "connectivity_matrix": "m.npy"}, "needs connectivity_nb_blocs or connectivity_labels, one of both"),
        ({**L, "connectivity_matrix": "m.npy", "connectivity_nb_blocs": 3, "connectivity_labels": "l"}, "one of both"),
        ({**L, "connectivity_matrix": "m.npy", "connectivity_nb_blocs": [3, 0, 1]}, "expected a whole number above 0"),
        ({**L, "connectivity_matrix": ["m", "n"], "connectivity_nb_blocs": 3}, "expected one text"),
        ({**D, "as": "fodf"}, "as is \"fodf\": expected one of sh, tensor, dwi"),
        ({**D, "order": 5}, "order is 5: expected an even number"),
        ({**D, "order": 6.5}, "expected a whole number above 0"),
        ({**D, "shell": "1000"}, "expected a number above 0"),
        ({**D, "as": "tensor", "normalised": 1}, "expected true or false"),
        ({**D, "as": "tensor", "order": 6}, "unknown key 'order'"),
        ({**D, "files": ["a.nii"]}, "unknown key 'files'"),
        ({"type": "volume", "dwi": "a.nii", "bval": "b", "as": "sh"}, "'g' has no 'bvec'"),
        ({"type": "volume", "dwi": "a.nii", "gradients": ["b", "c"], "as": "sh"}, "expected one file, MRtrix's table"),
        (["a.nii"], "'g': expected its type and files"),
    ],
)  # fmt: skip
def test_what_it_may_not_say(group: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        parse_config({"g": group}, "config.json")
    assert str(caught.value).startswith("config.json, 'g'") and "\n" not in str(caught.value)


def test_files_that_are_no_config(tmp_path: Path) -> None:
    for text, said in (("{", "is no JSON: Expecting"), ("[]", "expected groups by name"), ("{}", "expected groups")):
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(UsageError, match=rf"c\.json.* {said}"):
            read_config(tmp_path / "c.json")
    with pytest.raises(UsageError, match=r"no\.json cannot be read: No such file"):
        read_config(tmp_path / "no.json")
    with pytest.raises(UsageError, match="'a/b' cannot name a group"):
        parse_config({"a/b": V})


def test_lists_of_subjects(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("sub-01\n sub-02 sub-03/ses-1\n\n")
    assert read_subjects(tmp_path / "s.txt") == ["sub-01", "sub-02", "sub-03/ses-1"]
    assert read_subjects(None) == []
    (tmp_path / "s.txt").write_text("sub-01 sub-02 sub-01")
    with pytest.raises(UsageError, match=r"s\.txt names sub-01 twice"):
        read_subjects(tmp_path / "s.txt")
    with pytest.raises(UsageError, match=r"no\.txt cannot be read: No such file"):
        read_subjects(tmp_path / "no.txt")
