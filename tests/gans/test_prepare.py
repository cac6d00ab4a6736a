"""Preparing pairs: what is written is what was given, split by name, whole or not at all."""

from __future__ import annotations

import errno
import functools
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from treadle.errors import RunError, UsageError
from treadle.gans import prepare
from treadle.gans.facades import LABELS, facade
from treadle.gans.prepare import edge_pairs, edges, facade_pairs, fitted, joined, write_pairs
from treadle.images.reading import BadPicture

ALL = (1.0, 0.0, 0.0)
TENTHS = (0.8, 0.1, 0.1)
noise = np.random.default_rng(0)


def picture(path: Path, height: int = 16, width: int = 16) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = noise.integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def folders(root: Path, *names: str) -> tuple[Path, Path]:
    for name in names:
        picture(root / "a" / f"{name}.png")
        picture(root / "b" / f"{name}.bmp")
    return root / "a", root / "b"


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_a_part_without_pairs_is_refused(tmp_path):
    a, b = folders(tmp_path, "1", "2")
    with pytest.raises(UsageError, match=r"none of the 2 pairs goes to val"):
        joined(a, b, 16, shares=TENTHS)
    with pytest.raises(UsageError, match=r"none of the 2 pairs goes to val"):
        edge_pairs(a, 16, shares=TENTHS)
    with pytest.raises(UsageError, match=r"none of the 2 pairs goes to val"):
        facade_pairs(2, 32, shares=TENTHS)
    assert len(joined(a, b, 16, shares=ALL)[0]) == 2


# Joining


def test_two_folders_are_joined_by_name_without_loss(tmp_path):
    a, b = picture(tmp_path / "a/x 1.png"), picture(tmp_path / "b/x 1.BMP")
    pairs, alone = joined(tmp_path / "a", tmp_path / "b", 16, shares=ALL)
    counts, bad = write_pairs(pairs, tmp_path / "out/deep")
    assert (counts, alone, bad) == ({"train": 1}, [], [])
    assert np.array_equal(read(tmp_path / "out/deep/train/x 1.png"), np.concatenate([a, b], axis=1))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["deep"]
    assert [path.name for path in (tmp_path / "out/deep").iterdir()] == ["train"]


def test_names_with_accents_match_however_they_are_composed(tmp_path):
    picture(tmp_path / "a" / (unicodedata.normalize("NFC", "Größe-été-家") + ".png"))
    picture(tmp_path / "b" / (unicodedata.normalize("NFD", "Größe-été-家") + ".png"))
    pairs, _ = joined(tmp_path / "a", tmp_path / "b", 16, shares=ALL)
    write_pairs(pairs, tmp_path / "out")
    assert [path.stem for path in (tmp_path / "out/train").iterdir()] == [unicodedata.normalize("NFC", "Größe-été-家")]


def test_pictures_without_a_partner_are_refused_or_left_out(tmp_path):
    a, b = folders(tmp_path, "1", "2")
    for name in "3456":
        picture(a / f"{name}.png")
    picture(b / "7.png")
    with pytest.raises(UsageError, match=r"5 of 9 pictures have no partner .*3\.png, .*4\.png, .*5\.png and 2 more"):
        joined(a, b, 16, shares=ALL)
    pairs, alone = joined(a, b, 16, shares=ALL, skip_unmatched=True)
    assert [pair.name for pair in pairs] == ["1", "2"]
    assert [path.name for path in alone] == ["3.png", "4.png", "5.png", "6.png", "7.png"]


def test_folders_without_common_names_are_refused_in_any_case(tmp_path):
    picture(tmp_path / "a/1.png"), picture(tmp_path / "b/1_label.png")
    with pytest.raises(UsageError, match=r"no picture in .*a has the name of one in .*b"):
        joined(tmp_path / "a", tmp_path / "b", 16, shares=ALL, skip_unmatched=True)


def test_two_pictures_of_one_name_are_refused(tmp_path):
    a, b = folders(tmp_path, "1")
    picture(a / "1.bmp")
    with pytest.raises(UsageError, match=r"1\.bmp and 1\.png have the same name"):
        joined(a, b, 16, shares=ALL)


@pytest.mark.parametrize("size", [0, -1, 20000])
def test_a_size_that_makes_no_picture_is_refused(tmp_path, size):
    a, b = folders(tmp_path, "1")
    for pairs in (joined(a, b, size, shares=ALL)[0], edge_pairs(a, size, shares=ALL)):
        with pytest.raises(UsageError, match=r"expected a number of pixels"):
            write_pairs(pairs, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_no_file_replaces_another(tmp_path):
    one, two = facade_pairs(2, 32, shares=ALL)
    same = prepare.Pair(two.part, one.name, two.make)
    with pytest.raises(RunError, match=r"File exists"):
        write_pairs([one, same], tmp_path / "out")


def test_partners_of_other_proportions_are_named_and_can_be_stretched(tmp_path):
    picture(tmp_path / "a/1.png", 16, 16), picture(tmp_path / "b/1.png", 16, 20)
    pairs, _ = joined(tmp_path / "a", tmp_path / "b", 16, shares=ALL)
    with pytest.raises(
        UsageError, match=r"b/1\.png has other proportions than .*a/1\.png \(20 x 16 and 16 x 16 pixels"
    ):
        write_pairs(pairs, tmp_path / "out")
    pairs, _ = joined(tmp_path / "a", tmp_path / "b", 16, shares=ALL, fit="stretch")
    assert write_pairs(pairs, tmp_path / "out")[0] == {"train": 1}


def test_bad_pictures_are_all_counted_and_can_be_left_out(tmp_path):
    a, b = folders(tmp_path, "1", "2", "3")
    (a / "1.png").write_bytes((a / "1.png").read_bytes()[:300])
    (b / "2.bmp").write_bytes(b"")
    pairs, _ = joined(a, b, 16, shares=ALL)
    with pytest.raises(UsageError, match=r"a/1\.png is damaged.* \(and 1 more\); --skip-bad leaves"):
        write_pairs(pairs, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    counts, bad = write_pairs(pairs, tmp_path / "out", skip_bad=True)
    assert counts == {"train": 1} and len(bad) == 2 and all(isinstance(one, BadPicture) for one in bad)
    assert [path.name for path in (tmp_path / "out/train").iterdir()] == ["3.png"]


def test_a_part_whose_pairs_are_all_bad_is_refused(tmp_path):
    a, b = folders(tmp_path, "1")
    (a / "1.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"no pair is left for train: .*a/1\.png is empty"):
        write_pairs(joined(a, b, 16, shares=ALL)[0], tmp_path / "out", skip_bad=True)
    assert not (tmp_path / "out").exists()


# Fitting


def test_cropping_takes_the_middle_and_stretching_takes_all():
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200
    assert (fitted(wide, 8, "crop") == 200).all()
    assert np.array_equal(fitted(wide.transpose(1, 0, 2), 8, "crop"), fitted(wide, 8, "crop"))
    stretched = fitted(wide, 24, "stretch", labels=True)
    assert (stretched[:, 8:16] == 200).all() and not stretched[:, :8].any() and not stretched[:, 16:].any()


def test_label_maps_get_no_new_colours_and_photographs_are_smoothed():
    labels = facade(0, 1, 128)[0]
    known = {tuple(colour) for colour in LABELS.values()}
    assert {tuple(colour) for colour in fitted(labels, 50, labels=True).reshape(-1, 3)} <= known
    assert not {tuple(colour) for colour in fitted(labels, 50).reshape(-1, 3)} <= known


def test_only_the_named_side_is_treated_as_labels(tmp_path):
    labels = facade(0, 1, 128)[0]
    for side in "ab":
        (tmp_path / side).mkdir()
        Image.fromarray(labels).save(tmp_path / side / "1.png")
    for sides in ("", "A", "B", "AB"):
        pairs, _ = joined(tmp_path / "a", tmp_path / "b", 50, shares=ALL, labels=sides)
        for side, half in zip("AB", pairs[0].make(), strict=True):
            assert np.array_equal(half, fitted(labels, 50, labels=side in sides))


# Edges


def test_edges_are_black_lines_where_brightness_changes():
    photo = np.full((40, 40, 3), 30, np.uint8)
    photo[10:30, 10:30] = 220
    drawn = edges(photo)
    assert drawn.shape == photo.shape and drawn.dtype == np.uint8 and set(np.unique(drawn)) == {0, 255}
    rows, columns = np.nonzero(drawn[..., 0] == 0)
    outline = np.maximum(np.abs(rows - 19.5), np.abs(columns - 19.5))
    assert len(rows) >= 60 and (np.abs(outline - 10) < 2).all()


def test_noise_has_no_edges():
    noisy = np.random.default_rng(0).normal(230, 1, (64, 64, 1)).round().astype(np.uint8).repeat(3, axis=2)
    assert (edges(noisy) == 255).all()
    assert (edges(np.full((20, 20, 3), 99, np.uint8)) == 255).all()


@pytest.mark.parametrize("sigma", [0.3, 1, 20])
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 3), (33, 40, 3)])
def test_photographs_of_any_shape_have_edge_maps(sigma, shape):
    checks = np.indices(shape).sum(axis=0).astype(np.uint8) % 2 * 255
    assert edges(checks, sigma).shape == shape


def test_more_blur_finds_fewer_edges():
    photo = facade(0, 0, 128)[1]
    fine, coarse = ((edges(photo, sigma) == 0).mean() for sigma in (1, 4))
    assert 0 < coarse < 0.6 * fine


def test_photographs_stand_right_of_their_edges(tmp_path):
    photo = picture(tmp_path / "photos/1.png")
    write_pairs(edge_pairs(tmp_path / "photos", 16, shares=ALL, sigma=1), tmp_path / "out")
    assert np.array_equal(read(tmp_path / "out/train/1.png"), np.concatenate([edges(photo, 1), photo], axis=1))


@pytest.mark.parametrize("sigma", [0, -1, float("nan"), float("inf")])
def test_a_blur_that_is_none_is_refused(tmp_path, sigma):
    with pytest.raises(UsageError, match=r"sigma is"):
        edge_pairs(folders(tmp_path, "1")[0], 16, shares=ALL, sigma=sigma)


def test_without_scikit_image_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "skimage.feature", None)
    with pytest.raises(UsageError, match=r"pip install 'treadle\[gans\]'"):
        edge_pairs(tmp_path, 16, shares=ALL)


# Facades


def test_facades_on_disk_are_those_of_the_grammar_split_in_their_order(tmp_path):
    counts, _ = write_pairs(facade_pairs(20, 32, shares=TENTHS, seed=5), tmp_path / "out")
    assert counts == {"train": 16, "val": 2, "test": 2}
    assert sorted(path.name for path in (tmp_path / "out/val").iterdir()) == ["0016.png", "0017.png"]
    assert np.array_equal(read(tmp_path / "out/test/0018.png"), np.concatenate(facade(5, 18, 32), axis=1))


def test_no_facades_are_refused():
    with pytest.raises(UsageError, match=r"count is 0"):
        facade_pairs(0, 32, shares=ALL)


# Whole or not at all


@pytest.mark.parametrize("fails_at", [0, 3])
def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, fails_at):
    saved = []

    def full(picture, file, *how):
        if len(saved) == fails_at:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        saved.append(file.name)
        save(picture, file, *how)

    save = Image.Image.save
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(RunError, match=r"cannot write .*out: No space left on device; nothing is left of it"):
        write_pairs(facade_pairs(5, 32, shares=ALL), tmp_path / "out")
    assert len(saved) == fails_at and not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit(143), MemoryError])
def test_an_interrupted_command_leaves_nothing_behind(tmp_path, monkeypatch, error):
    def interrupted(*_):
        raise error

    monkeypatch.setattr(Image.Image, "save", interrupted)
    with pytest.raises(BaseException, match=None) as raised:
        write_pairs(facade_pairs(5, 32, shares=ALL), tmp_path / "out")
    assert isinstance(raised.value, (KeyboardInterrupt, SystemExit, MemoryError)) and not list(tmp_path.iterdir())


def test_existing_output_is_refused_and_left_as_it_is(tmp_path):
    pairs = facade_pairs(2, 32, shares=ALL)
    write_pairs(pairs, tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.png")}
    with pytest.raises(UsageError, match=r"out is not empty: choose a new folder"):
        write_pairs(facade_pairs(3, 32, shares=ALL, seed=1), tmp_path / "out")
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.png")} == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match=r"file is a file"):
        write_pairs(pairs, tmp_path / "file")
    with pytest.raises(UsageError, match=r"cannot be made"):
        write_pairs(pairs, tmp_path / "file" / "out")
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    assert write_pairs(facade_pairs(2, 32, shares=ALL), tmp_path / "out")[0] == {"train": 2}


def test_output_that_appears_meanwhile_is_not_mixed_with(tmp_path):
    def someone_else(pairs):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs").touch()
        return iter(pairs)

    write = functools.partial(write_pairs, facade_pairs(2, 32, shares=ALL), tmp_path / "out")
    with pytest.raises(UsageError, match=r"out is not empty"):
        write(progress=someone_else)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "theirs"]
