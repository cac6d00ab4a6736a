"""A file in dwi_ml's schema, written with h5py alone; and such a file read as dwi_ml reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

AFFINE = np.array([[-2.0, 0, 0, 30], [0, 2, 0.1, -20], [0, -0.1, 2, 5], [0, 0, 0, 1]])
SHAPE = (12, 10, 8)
SUBJECTS = {"training": ["sub-01_ses-1", "sub-01_ses-2"], "validation": ["sub-02"], "testing": []}


def lines_of(subject: str, seed: int = 0) -> list[np.ndarray]:
    """Lines of 1 to 30 points, in voxel space with corner origin."""
    generator = np.random.default_rng([len(subject), ord(subject[-1]), seed])
    lengths = [12, 1, 30, *generator.integers(2, 20, 40)]
    return [generator.uniform(0, SHAPE, (length, 3)).astype(np.float32) for length in lengths]


def volume_of(subject: str, features: int = 6) -> np.ndarray:
    return np.random.default_rng(ord(subject[-1])).random((*SHAPE, features), np.float32)


def write_by_hand(path: Path, **streamlines: Any) -> Path:
    """Groups of any name; lines stored in another order than they are counted in, with a gap between them."""
    with h5py.File(path, "w") as file:
        file.attrs["data_and_time"] = "01 January 2026 12:00:00"
        file.attrs["groups_config"] = "{'mri input': {}}"
        every = [name for names in SUBJECTS.values() for name in names]
        file.attrs["chosen_subjs"] = every
        for split, names in SUBJECTS.items():
            file.attrs[f"{split}_subjs"] = names
        file.attrs["step_size"] = 0.5
        file.attrs["nb_points"] = file.attrs["compress"] = "Not defined by user"
        for name in every:
            subject = file.create_group(name)
            for group, features in (("mri input", 6), ("a mask", 1)):
                volume = subject.create_group(group)
                volume.create_dataset("data", data=volume_of(name, features))
                volume.attrs["type"] = "volume"
                volume.attrs["affine"] = AFFINE
                volume.attrs["voxres"] = np.linalg.norm(AFFINE[:3, :3], axis=0)
                volume.attrs["nb_features"] = features
            for group, seed in (("all fibres", 0), ("bad ones", 1)):
                write_lines(subject.create_group(group), lines_of(name, seed), keep_dps=group == "all fibres")
                subject[group].attrs.update(streamlines)
    return path


def write_lines(group: Any, lines: list[np.ndarray], keep_dps: bool) -> None:
    order = np.argsort([len(line) for line in lines], kind="stable")
    gap = np.full((7, 3), 1e9, np.float32)
    stored, offsets, place = [gap], np.zeros(len(lines), np.int64), len(gap)
    for index in order:
        offsets[index] = place
        stored += [lines[index], gap]
        place += len(lines[index]) + len(gap)
    group.create_dataset("data", data=np.concatenate(stored))
    group.create_dataset("offsets", data=offsets)
    group.create_dataset("lengths", data=np.array([len(line) for line in lines], np.int32))
    sizes = np.linalg.norm(AFFINE[:3, :3], axis=0)
    along = [np.linalg.norm(np.diff(line, axis=0) * sizes, axis=1).sum() for line in lines]
    group.create_dataset("euclidean_lengths", data=along)
    if keep_dps:
        dps = group.create_group("data_per_streamline")
        dps.create_dataset("weight", data=np.arange(len(lines), dtype=np.float64)[:, None])
        dps.create_dataset("colour", data=np.arange(3 * len(lines)).reshape(-1, 3))
        group.create_dataset("connectivity_matrix", data=np.triu(np.arange(64).reshape(8, 8) % 5 > 2))
        group.attrs["connectivity_matrix_type"] = "from_blocs"
        group.attrs["connectivity_nb_blocs"] = [2, 2, 2]
    group.attrs["type"] = "streamlines"
    group.attrs["space"], group.attrs["origin"] = "Space.VOX", "Origin.TRACKVIS"
    group.attrs["affine"] = AFFINE
    group.attrs["dimensions"] = np.array(SHAPE, np.int16)
    group.attrs["voxel_sizes"] = sizes.astype(np.float32)
    group.attrs["voxel_order"] = "LAS"


def read_as_dwi_ml(path: Path) -> dict[str, Any]:
    """What dwi_ml's reader takes from a file, by its logic: groups are told by their type, lines cut by offsets and
    lengths, the space and origin read from the end of their names."""
    found: dict[str, Any] = {}
    with h5py.File(path, "r") as file:
        for split in ("training", "validation", "testing"):
            found[split] = [str(name) for name in file.attrs[f"{split}_subjs"]]
        found["step_size"] = file.attrs["step_size"]
        for key in {name for split in ("training", "validation", "testing") for name in found[split]}:
            subject: dict[str, Any] = {}
            for group, opened in file[key].items():
                if opened.attrs["type"] == "volume":
                    assert opened.attrs["nb_features"] == opened["data"].shape[-1]
                    subject[group] = {
                        "data": np.array(opened["data"], dtype=np.float32),
                        "affine": np.array(opened.attrs["affine"]),
                        "voxres": np.array(opened.attrs["voxres"]),
                    }
                else:
                    assert opened.attrs["type"] == "streamlines"
                    assert str(opened.attrs["space"]).lower()[6:] == "vox"
                    assert str(opened.attrs["origin"]).lower()[7:] == "trackvis"
                    data, offsets, lengths = (np.array(opened[name]) for name in ("data", "offsets", "lengths"))
                    subject[group] = {
                        "lines": [data[start : start + count] for start, count in zip(offsets, lengths, strict=True)],
                        "mm": np.array(opened["euclidean_lengths"]),
                        "dps": {name: values[:] for name, values in opened["data_per_streamline"].items()},
                        "space": tuple(
                            np.array(opened.attrs[name]) for name in ("affine", "dimensions", "voxel_sizes")
                        ),
                        "order": str(opened.attrs["voxel_order"]),
                        "blocs": opened.attrs.get("connectivity_nb_blocs"),
                        "labels": np.asarray(opened["connectivity_label_volume"], dtype=int)
                        if "connectivity_label_volume" in opened
                        else None,
                        "matrix": np.asarray(opened["connectivity_matrix"], dtype=int)
                        if "connectivity_matrix" in opened
                        else None,
                    }
            found[key] = subject
    return found
