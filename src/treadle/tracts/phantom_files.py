"""A phantom as files: what a scanner, a person with a brush and scilpy's tractometer would have of it.

dwi.nii.gz, dwi.bval, dwi.bvec         the signal, in FSL's convention of gradients
mask.nii.gz, tracking_mask.nii.gz      where bundles are; where lines may go
seeding_mask.nii.gz, crossing.nii.gz   where to begin; where two bundles cross
peaks.nii.gz                           the true directions, nine values a voxel
bundles/, masks/, ends/                of each bundle its lines (TRK), voxels, and end regions
config.json                            what to score by, for `treadle tracts score` and scilpy
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from treadle.errors import RunError
from treadle.files import write_whole
from treadle.tracts.files import write_streamlines
from treadle.tracts.phantom import Phantom
from treadle.tracts.scoring.truth import truth_of
from treadle.tracts.volumes import write_volume


def write_phantom(phantom: Phantom, directory: Path) -> None:
    """Write a phantom into a directory, which is made if need be. Raises RunError where the disk refuses a file."""
    space = phantom.space
    try:
        for folder in ("bundles", "masks", "ends"):
            (directory / folder).mkdir(parents=True, exist_ok=True)
        # FSL counts the first axis from the patient's left: with an affine like ours, from the other end.
        towards = phantom.directions * ([-1, 1, 1] if np.linalg.det(space.affine[:3, :3]) > 0 else [1, 1, 1])
        write_whole(directory / "dwi.bval", " ".join(f"{value:g}" for value in phantom.bvalues) + "\n")
        rows = (" ".join(f"{value:.8f}" for value in axis) for axis in towards.T)
        write_whole(directory / "dwi.bvec", "\n".join(rows) + "\n")
        volumes = {
            "dwi": phantom.dwi,
            "mask": phantom.mask,
            "tracking_mask": phantom.tracking_mask,
            "seeding_mask": phantom.seeding_mask,
            "crossing": phantom.crossing,
            "peaks": phantom.ordered_peaks.reshape(*space.shape, 9),
        }
        config: dict[str, dict[str, Any]] = {}
        truth = truth_of(phantom)
        for name, lines in phantom.bundles.items():
            write_streamlines(directory / "bundles" / f"{name}.trk", lines, space)
            volumes[f"masks/{name}"] = phantom.masks[name]
            volumes[f"ends/{name}_head"], volumes[f"ends/{name}_tail"] = phantom.ends[name]
            config[name] = {
                "gt_mask": f"masks/{name}.nii.gz",
                "head": f"ends/{name}_head.nii.gz",
                "tail": f"ends/{name}_tail.nii.gz",
                "length": truth.bundles[name].length,
            }
        for name, values in volumes.items():
            write_volume(directory / f"{name}.nii.gz", values, space)
        write_whole(directory / "config.json", json.dumps(config, indent=2) + "\n")
    except OSError as error:
        raise RunError(f"cannot write {error.filename or directory}: {error.strerror or error}") from error
