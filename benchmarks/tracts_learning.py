"""What following lines comes to: on a phantom of another seed, on another real scan, with each getter and each model.

    python benchmarks/tracts_learning.py                 all parts, and whether the promises hold (exit 1 where not)
    python benchmarks/tracts_learning.py --part PART...  phantom-0, phantom-1, phantom-2, real, getters, models
    python benchmarks/tracts_learning.py --write         also stores them in benchmarks/results/tracts_learning.md
    python benchmarks/tracts_learning.py --quick         a few steps of everything: whether it runs; for the tests

How it is measured. Errors are the mean of 1 - cos between the direction that is told and the line's next step, over all
points that something leads to and follows. Copying, which tells the direction that a line came by, depends on the step:
here it is 2 mm throughout. The principal axis is that of the tensor with the trace 1, or that of the tensor that fits
the signal's harmonics, where lines are. CPU seconds are those of the training alone, on one thread.

Phantoms: the recipe `tracts` with the seeds 0, 1 and 2, as it is but for pictures and validation by the way; trained on
phantoms 1 to 6, judged on phantom 101, of voxels of 2 mm. Then 2,000 seeds are tracked, with the phantom's own masks
(the lines may go where a bundle's voxels are, dilated by one). Of the lines that enter a voxel where bundles cross,
those that are valid streamlines are counted: lines that link both ends of a bundle, as the tractometer says, and are at
most a fifth longer than its longest line or shorter than its shortest (detours are wrong paths). Overlap and overreach
are of valid lines, by the voxels of the ground truth. Beside it: the true directions in each voxel (each
of at least .4 of it), going straight on from where these lead first, and the tensor's principal direction (FA above
.15), all with the same seeds and settings.

Real scans: trained on `small_64D`, 10 x 10 x 10 voxels of 2 mm, with lines that follow the principal axis of its
tensors (steps of .5 mm, FA above .15, at least 10 mm, 5 seeds a voxel); tested on `dwi_canon`, another scanner's, with
the lines that came with it, whose points are 2 mm apart. The recipe `tracts-mlp` sees the tensors with the trace 1, at
the point and 2 mm before and behind it along each axis; there is no noise on the points, since the lines to be judged
have none. These settings were chosen with `dwi_canon` in sight; what each is worth is told by leaving it out. The half
voxel: all that a model sees is read half a voxel off, in training and test. Both scans lie beside a developer's
checkout, in ../shared/data; without them this part is left out.

Getters and models: the recipe `tracts` with each direction getter, and the other recipes, for a few epochs, on lines as
they are, not shaken nor cut, the point alone read. Lines are not turned either, except where directions are classes: a
class is learnt from its own lines. With getters the network says where lines go, not how they leave the direction that
they came by. Losses and errors are those of the held-out phantom 100, before and after. Logarithms of densities fall
below 0: what is left of a loss is 1 less its fall, in parts of its size before.

Parts that were run are kept in a folder (--keep), so that they can be run one by one; the tables show what is there.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _report import Gate, machine, table

from treadle.recipes.registry import load_recipe
from treadle.tracts.data import TESTING, TRAINING, VALIDATION, PhantomSubject
from treadle.tracts.files import read_streamlines
from treadle.tracts.getters.settings import GETTERS
from treadle.tracts.gradients import read_gradients
from treadle.tracts.judging import groups_of
from treadle.tracts.phantom import Phantom, make_phantom
from treadle.tracts.scoring.geometry import touching
from treadle.tracts.scoring.tractometer import Scores, score
from treadle.tracts.scoring.truth import truth_of
from treadle.tracts.signal.tensor import fit_tensors, fractional_anisotropy, normalised, principal
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.subject import MemorySubject, TractData
from treadle.tracts.tracking.baselines import Peaks, Straight
from treadle.tracts.tracking.propagator import Propagator
from treadle.tracts.tracking.seeds import place_seeds
from treadle.tracts.tracking.settings import TrackingSettings
from treadle.tracts.tracking.tracker import track
from treadle.tracts.volumes import read_volume

RESULTS = Path(__file__).parent / "results" / "tracts_learning.md"
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
KEEP = Path(tempfile.gettempdir()) / "treadle-benchmark-tracts-learning"

QUIET: dict[str, Any] = {"device": "cpu", "validate_every": None, "log_every": None}
"""What takes nothing away from the training, and is not measured here."""
UNSEEN: dict[str, Any] = QUIET | {"generate_every": None, "examples_every": None}
FEW: dict[str, Any] = {"max_epochs": 1, "max_batches": 2, "max_validation_batches": 1, "batch_size": 20}
"""The settings of a quick run."""

SEEDS = (0, 1, 2)
CURVED = ("arc", "helix")
OF_COPYING, VALID, OVERLAP, OVERREACH = 0.7, 0.8, 0.8, 0.3
"""On phantoms: the most of copying's error in curved bundles, the least share of valid lines through the crossing, the
least overlap of each bundle and its most overreach."""
TRACKED, PEAK, ANISOTROPY = 2000, 0.4, 0.15

REAL: dict[str, Any] = {
    "max_epochs": 40, "noise": 0.0, "neighbourhood": "axes", "radius": 2.0, "radius_units": "mm",
}  # fmt: skip
OF_REAL = 0.8
"""On the other scan: the most of the error of copying, and of the principal axis."""
AS_IT_IS, RAW, OFF = "as it is", "tensors with the trace they have", "read half a voxel off"
WITHOUT: dict[str, dict[str, Any]] = {
    "no neighbours": {"neighbourhood": "none"},
    "not turned": {"rotate": False},
    "noise on points, as on phantoms": {"noise": 0.4},
    RAW: {},
    OFF: {},
}
"""What is left out or done wrong, in runs with the first seed."""

EPOCHS = 4
PLAIN: dict[str, Any] = {
    "noise": 0.0, "rotate": False, "split": 0.0, "neighbourhood": "none", "learning_rate": "cosine 5e-3 to 1e-4",
}  # fmt: skip
LEFT_LOSS, LEFT_ANGLE, LEFT_DISTANCE = 0.5, {"getters": 0.1, "models": 0.25}, 0.5
"""What short runs may leave: of the loss, of the angle, and of the mm where a line was brought to 32 numbers."""
WHOLE: dict[str, Any] = {"max_epochs": 6, "learning_rate": "cosine 3e-3 to 1e-5"}
MODELS = ("tracts-gru", "tracts-tto", "tracts-tts", "tracts-ttst", "tracts-mlp", "tracts-autoencoder")


# Phantoms ----------------------------------------------------------------------------------------------------------


@cache
def phantom(seed: int, quick: bool) -> PhantomSubject:
    """A phantom as a subject, of a few lines where it is to be quick."""
    made = make_phantom(seed, lines=20 if quick else 400)
    given = made.subject(f"phantom-{seed}")
    return PhantomSubject(given.name, given.space, given.given_volumes, given.given_lines, phantom=made)


def phantoms(quick: bool) -> TractData:
    """What the recipes train on without data; in a quick run two of them."""
    seeds = ((1,), (), (101,)) if quick else (TRAINING, VALIDATION, TESTING)
    training, validation, testing = (tuple(phantom(seed, quick) for seed in part) for part in seeds)
    return TractData(training, validation or testing, testing)


def begin(recipe: str, data: TractData, quick: bool, **settings: Any) -> Any:
    """A trainer of a recipe."""
    found = load_recipe(recipe)
    return found.trainer_class(found.config, data=data, **settings | (FEW if quick else {}))


def train(trainer: Any) -> float:
    """Train to the end; returns CPU seconds."""
    start = time.process_time()
    trainer.train()
    return time.process_time() - start


def of_phantom(quick: bool, *, seed: int) -> dict[str, Any]:
    """The recipe's errors on each bundle of the test phantom, and the scores of tracking it, beside the baselines'."""
    trainer = begin("tracts", phantoms(quick), quick, seed=seed, **UNSEEN)
    found: dict[str, Any] = {"cpu": train(trainer), "steps": trainer.progress.step}
    subject = trainer.tracts.testing[0]
    made = subject.phantom
    judged = trainer.judge(trainer.test_feed)
    groups = groups_of(judged, [subject], trainer.config.lines)
    figures = {name: judged.figures(chosen) for name, chosen in zip(made.bundles, groups.values(), strict=True)}
    found["judged"] = figures | {"all": judged.figures()}
    tensors = subject.volume("tensors")
    true = Peaks(made.ordered_peaks, PEAK)
    ways: dict[str, Propagator] = {
        f"recipe, seed {seed}": trainer.propagator(subject),
        "true directions": true,
        "straight on": Straight(true),
        "principal axis": Peaks(principal(tensors) * fractional_anisotropy(tensors)[..., None], ANISOTROPY),
    }
    with trainer.quiet(), trainer.evaluating():
        found["tracked"] = {
            name: scored(way, made, trainer.tracking(), 50 if quick else TRACKED) for name, way in ways.items()
        }
    found["crossing"] = int(made.crossing.sum())
    trainer.close()
    return found


def scored(way: Propagator, made: Phantom, settings: TrackingSettings, count: int) -> dict[str, Any]:
    """Track a phantom from `count` seeds and score the lines."""
    seeds = place_seeds(made.seeding_mask, seed=0, total=count)
    lines = track(way, seeds, made.space, made.tracking_mask, settings, seed=0).lines
    scores = score(lines, truth_of(made), made.space)
    bundles = {name: {"OL": each.overlap, "OR": each.overreach} for name, each in scores.bundles.items()}
    return {"lines": len(lines), "bundles": bundles, **through(lines, scores, made.crossing)}


def through(lines: Streamlines, scores: Scores, crossing: np.ndarray) -> dict[str, float]:
    """How many lines enter the crossing (x, y, z), and the share of these that is valid."""
    entering = np.flatnonzero(touching(lines, crossing))
    valid = np.concatenate([each.valid for each in scores.bundles.values()])
    return {"entering": len(entering), "valid": float(np.isin(entering, valid).mean()) if len(entering) else 0.0}


# Real scans --------------------------------------------------------------------------------------------------------


def scan(volume: str, gradients: str) -> tuple[np.ndarray, Space]:
    """The tensors of a scan in ../shared/data, in 1e-3 mm^2/s."""
    values, space = read_volume(DATA / volume)
    read = read_gradients(DATA / f"{gradients}.bval", DATA / f"{gradients}.bvec", space)
    return fit_tensors(values, read.bvalues, read.directions) * 1e3, space


def followed(tensors: np.ndarray, space: Space) -> Streamlines:
    """Lines along the principal axis, from everywhere where there is one."""
    mask = fractional_anisotropy(tensors) > ANISOTROPY
    settings = TrackingSettings(step=0.5, theta=60.0, shortest=10.0)
    return track(Peaks(principal(tensors)), place_seeds(mask, seed=0, per_voxel=5), space, mask, settings, seed=0).lines


def scans(raw: bool = False, off: bool = False) -> TractData:
    """One scan to train on, another to test.

    Args:
        raw: do not normalise tensors.
        off: read half a voxel beside the points.
    """
    canon = "dwi_canon/3000_DTI_PA-ortho_cl"
    subjects = []
    for name, volume, gradients in (
        ("small_64D", "dwi_dipy/small_64D.nii", "dwi_dipy/small_64D"),
        ("dwi_canon", f"{canon}.nii.gz", canon),
    ):
        tensors, space = scan(volume, gradients)
        lines = read_streamlines(DATA / f"{canon}_ref_det.trk")[0] if name == "dwi_canon" else followed(tensors, space)
        lines = Streamlines(lines.points + np.float32(0.5), lines.offsets) if off else lines
        values = tensors if raw else normalised(tensors)
        subjects.append(MemorySubject(name, space, {"tensors": (values, "tensor")}, {"lines": lines}))
    return TractData((subjects[0],), (), (subjects[1],))


def of_scan(data: TractData, quick: bool, **settings: Any) -> dict[str, Any]:
    """Train on one scan, and judge on the other."""
    trainer = begin("tracts-mlp", data, quick, **UNSEEN | REAL | settings)
    found: dict[str, Any] = {"cpu": train(trainer), "steps": trainer.progress.step, "lines": len(trainer.feed.loader)}
    found |= trainer.judge(trainer.test_feed).figures()
    trainer.close()
    return found


def real(quick: bool) -> dict[str, Any]:
    """Three seeds, and what it rests on."""
    data = scans()
    found = {f"{AS_IT_IS}, seed {seed}": of_scan(data, quick, seed=seed) for seed in SEEDS[: 1 if quick else None]}
    for name, settings in list(WITHOUT.items())[: 1 if quick else None]:
        others = scans(raw=name == RAW, off=name == OFF) if name in (RAW, OFF) else data
        found[name] = of_scan(others, quick, seed=SEEDS[0], **settings)
        print(name, found[name], flush=True)
    return found


# Getters and models ------------------------------------------------------------------------------------------------


def short(quick: bool, recipe: str, **settings: Any) -> dict[str, Any]:
    """A short run of a recipe: what the validation says before and after."""
    quiet = QUIET if recipe == "tracts-autoencoder" else UNSEEN
    trainer = begin(recipe, phantoms(quick), quick, seed=0, **quiet | {"max_epochs": EPOCHS} | settings)
    before = dict(trainer.validate())
    cpu = train(trainer)
    after = dict(trainer.validate())
    found: dict[str, Any] = {"cpu": cpu, "steps": trainer.progress.step, "before": before, "after": after}
    if "angle" in after:
        found["copying"] = trainer.judge(trainer.validation_feed).figures()["copying"]
    trainer.close()
    print(recipe, settings, found, flush=True)
    return found


def getters(quick: bool) -> dict[str, Any]:
    """Each direction getter with the LSTM."""
    turned = {name: {"rotate": True} if "sphere" in name else {} for name in GETTERS}  # every class has to be seen
    return {name: short(quick, "tracts", getter=name, residual=False, **PLAIN | turn) for name, turn in turned.items()}


def models(quick: bool) -> dict[str, Any]:
    """Each other model."""
    given = dict.fromkeys(MODELS, PLAIN) | {"tracts-autoencoder": WHOLE}
    return {name: short(quick, name, **settings) for name, settings in given.items()}


# What is told ------------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[bool], dict[str, Any]]] = {
    **{f"phantom-{seed}": partial(of_phantom, seed=seed) for seed in SEEDS},
    "real": real,
    "getters": getters,
    "models": models,
}


def told(kept: dict[str, Any]) -> tuple[str, list[Gate]]:
    """The tables of the parts that there are, and their promises."""
    text, gates = machine(["numba"]), []
    runs = {seed: kept[f"phantom-{seed}"] for seed in SEEDS if f"phantom-{seed}" in kept}
    for part, more in (phantom_tables(runs), real_tables(kept.get("real")), short_tables(kept)):
        text += part
        gates += more
    if gates:
        text += f"\n\n### Promises\n\n{table(Gate.HEAD, [gate.row() for gate in gates])}"
    return text, gates


def phantom_tables(runs: dict[int, Any]) -> tuple[str, list[Gate]]:
    """Of the phantoms."""
    if not runs:
        return "", []
    first = next(iter(runs.values()))
    text = "\n\n### A phantom of another seed: 1 - cos of the next step, of 2 mm\n\n"
    head = ["bundle", *(f"seed {seed}" for seed in runs), "copying", "principal axis", "seeds' mean, of copying"]
    rows = []
    for name, base in first["judged"].items():
        angles = [run["judged"][name]["angle"] for run in runs.values()]
        rows.append([name, *(f"{angle:.5f}" for angle in angles), f"{base['copying']:.5f}", f"{base['principal']:.5f}",
                     f"{np.mean(angles) / base['copying']:.2f}" if base["copying"] > 1e-4 else ""])  # fmt: skip
    rows.append(["CPU-s", *(f"{run['cpu']:.0f}" for run in runs.values()), "", "", ""])
    text += table(head, rows)
    text += f"\n\n### The same phantom tracked, {first['crossing']} voxels of it where bundles cross\n\n"
    names = list(first["tracked"][next(iter(first["tracked"]))]["bundles"])
    head = ["way", "lines", "enter the crossing", "of these valid", *(f"OL {name}" for name in names),
            *(f"OR {name}" for name in names)]  # fmt: skip
    ways = {name: way for run in runs.values() for name, way in run["tracked"].items()}
    ours = [name for name in ways if name.startswith("recipe")]
    text += table(head, [
        [name, f"{way['lines']}", f"{way['entering']}", f"{way['valid']:.3f}",
         *(f"{way['bundles'][each][figure]:.3f}" for figure in ("OL", "OR") for each in names)]
        for name, way in sorted(ways.items(), key=lambda pair: pair[0] not in ours)
    ])  # fmt: skip
    gates = []
    for name in CURVED:
        worst = max(run["judged"][name]["angle"] / run["judged"][name]["copying"] for run in runs.values())
        gates.append(Gate(f"error of copying's, {name}, worst seed", worst, OF_COPYING))
    gates.append(Gate("lines through the crossing that are not valid, worst seed",
                      max(1 - ways[name]["valid"] for name in ours), 1 - VALID))  # fmt: skip
    for bundle in names:
        each = [ways[name]["bundles"][bundle] for name in ours]
        gates.append(Gate(f"part of {bundle} without a line, worst seed", max(1 - one["OL"] for one in each),
                          1 - OVERLAP))  # fmt: skip
        gates.append(Gate(f"overreach of {bundle}, worst seed", max(one["OR"] for one in each), OVERREACH))
    return text, gates


def real_tables(runs: dict[str, Any] | None) -> tuple[str, list[Gate]]:
    """Of the real scans."""
    if not runs:
        return "", []
    text = "\n\n### Trained on small_64D, tested on dwi_canon: 1 - cos of the next step\n\n"
    head = ["run", "mm", "model", "copying", "principal axis", "of copying", "of the axis", "CPU-s"]
    text += table(head, [
        [name, f"{run['step_mm']:.2f}", f"{run['angle']:.5f}", f"{run['copying']:.5f}", f"{run['principal']:.5f}",
         f"{run['angle'] / run['copying']:.2f}", f"{run['angle'] / run['principal']:.2f}", f"{run['cpu']:.0f}"]
        for name, run in runs.items()
    ])  # fmt: skip
    ours = [run for name, run in runs.items() if name.startswith(AS_IT_IS)]
    gates = [
        Gate(f"error of {said}, real scan, worst seed", max(run["angle"] / run[key] for run in ours), OF_REAL)
        for key, said in (("copying", "copying's"), ("principal", "the principal axis'"))
    ]
    return text, gates


def short_tables(kept: dict[str, Any]) -> tuple[str, list[Gate]]:
    """Of the short runs."""
    text, gates = "", []
    for part, title in (("getters", "Each direction getter with the LSTM"), ("models", "Each other model")):
        if part not in kept:
            continue
        rows = []
        for name, run in kept[part].items():
            before, after = run["before"], run["after"]
            left = 1 - (before["loss"] - after["loss"]) / abs(before["loss"])
            error = "angle" if "angle" in after else "distance"
            beside = f"{run['copying']:.4f}" if "copying" in run else ""
            rows.append([name, f"{run['steps']}", f"{run['cpu']:.0f}", f"{before['loss']:.4f}", f"{after['loss']:.4f}",
                         f"{before[error]:.4f}", f"{after[error]:.4f}", beside])  # fmt: skip
            gates.append(Gate(f"loss that is left, {name}", left, LEFT_LOSS))
            most = LEFT_ANGLE[part] if error == "angle" else LEFT_DISTANCE
            gates.append(Gate(f"error that is left, {name}", after[error] / before[error], most))
        text += f"\n\n### {title}, short runs\n\n"
        text += table(["", "steps", "CPU-s", "loss before", "after", "error before", "after", "copying"], rows)
    if text:
        text += "\n\nErrors are 1 - cos; the autoencoder's are mm."
    return text, gates


def main(given: Sequence[str] | None = None) -> int:
    """Run parts, and tell all that there are."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", nargs="*", choices=PARTS, default=list(PARTS), help="these parts; default: all")
    parser.add_argument("--write", action="store_true", help=f"store the tables in benchmarks/results/{RESULTS.name}")
    parser.add_argument("--quick", action="store_true", help="a few steps of everything, to see whether it runs")
    parser.add_argument("--keep", type=Path, default=KEEP, help=f"where parts that were run are kept ({KEEP})")
    options = parser.parse_args(given)
    torch.set_num_threads(1)
    options.keep.mkdir(parents=True, exist_ok=True)
    for name in options.part:
        if name == "real" and not DATA.is_dir():
            print(f"there is no {DATA}: the part 'real' is left out")
            continue
        found = PARTS[name](options.quick)
        (options.keep / f"{name}.json").write_text(json.dumps(found, indent=1))
    kept = {name: json.loads(file.read_text()) for name in PARTS if (file := options.keep / f"{name}.json").exists()}
    text, gates = told(kept)
    print(text)
    if options.write:
        about = (__doc__ or "").partition("How it is measured.")
        RESULTS.write_text(f"# What following lines comes to\n\n{text}\n\n{about[1]}{about[2]}")
    return 0 if options.quick or all(gate.held for gate in gates) else 1


if __name__ == "__main__":
    sys.exit(main())
