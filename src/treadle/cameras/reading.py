"""Captures from disk: COLMAP's folders, Blender's, instant-ngp's and nerfstudio's files, told by what lies there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from treadle.cameras.capture import Capture, Photograph
from treadle.cameras.colmap_files import PLACES, find_reconstruction
from treadle.cameras.colmap_scene import colmap_scene
from treadle.cameras.keeping import Keeper
from treadle.cameras.photographs import MEMORY, PhotographFiles, size_of
from treadle.cameras.scene import OnMissing, Scene
from treadle.cameras.splitting import Split, split_every, split_lists
from treadle.cameras.transforms import BLENDER, SINGLE, blender_scene, single_scene
from treadle.errors import UsageError, nearest

Format = Literal["auto", "blender", "transforms", "colmap"]


def read_capture(
    path: str | Path,
    *,
    factor: float = 1,
    every: int = 8,
    lists: Mapping[str, str | Path] | None = None,
    memory: int = MEMORY,
    format: Format = "auto",
    images: str | None = None,
    missing: OnMissing | None = None,
) -> Capture:
    """Read what was captured of a scene. Pictures are only looked for here, and decoded when they are asked for.

    Args:
        path: a folder that holds one of these, looked for in this order, or a JSON file:
            transforms_train.json, transforms_val.json, transforms_test.json (Blender; any of them);
            transforms.json (instant-ngp, nerfstudio);
            COLMAP's cameras, images and points3D, .bin or .txt, in sparse/0, in sparse or directly, with pictures in
            `images`, in `images_N` or directly, and masks (black is ignored) in `masks`, called NAME.png.
        factor: how many times smaller, along each side, pictures are made.
        every: hold out every so many-th view, of all views sorted by name, where the files do not say which; 0: none.
        lists: text files with a picture's name per line under "train", "validation" and "test", which go before all
            else; see `split_lists`.
        memory: bytes of decoded pictures that are kept.
        format: "blender", "transforms" or "colmap" where several lie in one folder.
        images: the folder of COLMAP's pictures, below `path`.
        missing: whether views whose pictures are missing are left out, with a note ("skip", by default of COLMAP), or
            are an error ("refuse", by default of the others).

    Returns:
        The capture, in the files' own coordinates. `train` is empty where there are Blender's files and none to train.

    Raises:
        UsageError: nothing of the kind is there; files that are damaged, mixed up or say what cannot be; less than two
            views; camera models that are not undistorted.
    """
    if format not in get_args(Format):
        raise UsageError(f"format is {format!r}{nearest(str(format), get_args(Format))}")
    if missing not in (None, *get_args(OnMissing)):
        raise UsageError(f"missing is {missing!r}{nearest(str(missing), get_args(OnMissing))}")
    scene = _scene(Path(path), format, images, missing)
    if len(scene.views) < 2:
        raise UsageError(f"{scene.source} has one view whose picture is there: at least 2 are needed")
    split = _split(scene, every, lists)
    used = {*split.train, *split.validation, *split.test}
    if len(used) < len(scene.views):
        scene.notes.append(f"{len(scene.views) - len(used)} views are neither trained on nor held out")
    keeper: Keeper[Photograph] = Keeper(memory, size_of)
    train, validation, test = (
        PhotographFiles([scene.views[index] for index in part], factor=factor, keeper=keeper)
        for part in (split.train, split.validation, split.test)
    )
    return Capture(
        train=train,
        validation=test if split.validation == split.test else validation,
        test=test,
        points=scene.points,
        colors=scene.colors,
        notes=tuple(scene.notes),
        aabb_scale=scene.aabb_scale,
    )


def _scene(path: Path, format: Format, images: str | None, missing: OnMissing | None) -> Scene:
    if path.is_file():
        if path.name in BLENDER.values():
            return blender_scene(path.parent, missing=missing or "refuse")
        if path.suffix.lower() == ".json":
            return single_scene(path, missing=missing or "refuse")
        raise UsageError(f"{path} is no capture: name a folder, or a transforms.json")
    if not path.is_dir():
        raise UsageError(f"{path}: no such folder: name one that holds pictures and cameras")
    model = find_reconstruction(path)
    there: dict[str, str] = {}
    if blender := [name for name in BLENDER.values() if (path / name).is_file()]:
        there["blender"] = ", ".join(blender)
    if (path / SINGLE).is_file():
        there["transforms"] = SINGLE
    if model is not None:
        there["colmap"] = f"COLMAP's files in {model}"
    if not there:
        raise UsageError(f"{path} holds no capture: expected transforms.json, {', '.join(BLENDER.values())}, or "
                         f"COLMAP's cameras.bin and images.bin, there or in {' or '.join(PLACES[:2])}")  # fmt: skip
    chosen = next(iter(there)) if format == "auto" else format
    if chosen not in there:
        raise UsageError(
            f"{path} holds no capture of the format {chosen}: what is there is {'; '.join(there.values())}"
        )
    if images is not None and chosen != "colmap":
        raise UsageError(f"images is {images!r}: only COLMAP's pictures lie in a folder of one's choice, and what "
                         f"counts here is {there[chosen]}")  # fmt: skip
    if chosen == "blender":
        scene = blender_scene(path, missing=missing or "refuse")
    elif chosen == "transforms":
        scene = single_scene(path / SINGLE, missing=missing or "refuse")
    else:
        assert model is not None
        scene = colmap_scene(path, model, images=images, missing=missing or "skip")
    unused = [what for name, what in there.items() if name != chosen]
    if unused:
        scene.notes.insert(0, f"read from {there[chosen]}; not used: {'; '.join(unused)}")
    return scene


def _split(scene: Scene, every: int, lists: Mapping[str, str | Path] | None) -> Split:
    if lists is not None:
        return split_lists([view.camera.name for view in scene.views], lists)
    return scene.split or split_every(len(scene.views), every)
