"""Folders of pictures, translated: names, formats, bad files, what is there already, disks that fill, kills."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from treadle.errors import RunError, UsageError
from treadle.gans import translating
from treadle.gans.translating import translate_files
from treadle.gans.translator import Translator
from treadle.gans.values import Values
from treadle.images.pixels import with_channels
from treadle.images.reading import read_array
from treadle.images.writing import write_picture


class Negative(torch.nn.Module):
    """Turns pictures into their negatives, and notes how many it was given at once."""

    def __init__(self):
        super().__init__()
        self.batches, self.after = [], lambda: None

    def forward(self, x):
        self.batches.append(tuple(x.shape))
        self.after()
        return -x


@pytest.fixture
def translator():
    return Translator(model=Negative(), multiple=4)


def picture(path, height=8, width=12, channels=3, dtype="uint8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(path.name))
    write_picture(path, rng.integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype))
    return path


def check(source, target):
    """The target is the negative of the source, bit by bit, with its alpha."""
    given, made = read_array(source), read_array(target)
    assert made.dtype == given.dtype
    expected = np.iinfo(given.dtype).max - with_channels(given, 3)
    np.testing.assert_array_equal(made, np.concatenate([expected, given[:, :, 3:]], axis=2))


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_folder_keeps_its_names_folders_sizes_and_formats(tmp_path, translator):
    names = ["1.png", "2.bmp", "10.tif", "deep/a.png", "deep/er/b.ppm", "deep/soft.webp", "gray.png", "alpha.png"]
    for index, name in enumerate(names):
        kind = {"10.tif": {"dtype": "uint16", "channels": 1}, "gray.png": {"channels": 1}}.get(name, {})
        picture(tmp_path / "in" / name, 8 + index, 12, **{"channels": 4 if name == "alpha.png" else 3} | kind)
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    picture(tmp_path / "in" / ".hidden.png")
    picture(tmp_path / "in" / ".thumbs" / "1.png")
    done = translate_files(translator, tmp_path / "in", tmp_path / "out")
    assert files(tmp_path / "out") == sorted(names) and len(done.written) == len(names) and not done.bad
    for name in names:
        check(tmp_path / "in" / name, tmp_path / "out" / name)


def test_pictures_of_one_size_go_through_the_network_together_within_the_bound(tmp_path, translator):
    for index in range(5):
        picture(tmp_path / "in" / f"{index}.png", 8, 12)
        picture(tmp_path / "in" / f"wide-{index}.png", 8, 20)
    told = []
    translate_files(
        translator, tmp_path / "in", tmp_path / "out", pixels=8 * 12 * 3, progress=lambda *it: told.append(it)
    )
    assert translator.model.batches == [(3, 3, 8, 12), (2, 3, 8, 12), *[(1, 3, 8, 20)] * 5]
    assert told[0] == (0, 10) and told[-1] == (10, 10) and told == sorted(told)
    for path in (tmp_path / "in").iterdir():
        check(path, tmp_path / "out" / path.name)


def test_what_is_larger_is_translated_in_tiles(tmp_path, translator):
    large = picture(tmp_path / "in" / "large.png", 61, 83, dtype="uint16")
    small = picture(tmp_path / "in" / "small.png")
    translate_files(translator, tmp_path / "in", tmp_path / "out", pixels=20 * 20, overlap=4)
    assert all(shape[0] * shape[2] * shape[3] <= 400 for shape in translator.model.batches)
    check(large, tmp_path / "out" / "large.png")
    check(small, tmp_path / "out" / "small.png")


def test_a_bound_too_small_for_the_network_is_refused_before_anything_is_done(tmp_path, translator):
    picture(tmp_path / "in" / "a.png")
    with pytest.raises(UsageError, match=r"3e-05 megapixels are too few: the network needs tiles of 8 x 8 pixels"):
        translate_files(translator, tmp_path / "in", tmp_path / "out", pixels=30)
    assert not (tmp_path / "out").exists()


def test_a_single_picture_goes_into_a_folder_or_a_file(tmp_path, translator):
    source = picture(tmp_path / "one.png")
    assert translate_files(translator, source, tmp_path / "out").written == [tmp_path / "out" / "one.png"]
    assert translate_files(translator, source, tmp_path / "two.tif").written == [tmp_path / "two.tif"]
    check(source, tmp_path / "out" / "one.png")
    check(source, tmp_path / "two.tif")
    with pytest.raises(UsageError, match=r"one.png would replace a picture: choose another folder"):
        translate_files(translator, source, tmp_path)
    with pytest.raises(UsageError, match=r"INPUT .*ones.png: no such file or directory; did you mean .*one.png"):
        translate_files(translator, tmp_path / "ones.png", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "format", "result"),
    [
        ("a.jpeg", None, "a.jpeg"), ("a.JPG", None, "a.JPG"), ("a.jpeg", "jpg", "a.jpeg"), ("a.png", "jpg", "a.jpg"),
        ("a.tiff", "tiff", "a.tiff"), ("a.png", "tiff", "a.tif"), ("a.gif", None, "a.png"),
        ("a.b.png", "webp", "a.b.webp"), ("a.png", "npy", "a.npy"),
    ],
)  # fmt: skip
def test_formats(tmp_path, translator, name, format, result):
    (tmp_path / "in").mkdir()
    Image.fromarray(np.full((8, 12, 3), 40, np.uint8)).save(tmp_path / "in" / name)
    done = translate_files(translator, tmp_path / "in", tmp_path / "out", format=format)
    assert [path.name for path in done.written] == [result]


def test_formats_with_fewer_bits_or_without_alpha_drop_them(tmp_path, translator):
    deep = picture(tmp_path / "in" / "deep.png", channels=4, dtype="uint16")
    translate_files(translator, tmp_path / "in", tmp_path / "out", format="bmp")
    made = read_array(tmp_path / "out" / "deep.bmp")
    assert made.dtype == np.uint8 and made.shape[2] == 3
    translate_files(translator, tmp_path / "in", tmp_path / "out", format="tiff")
    check(deep, tmp_path / "out" / "deep.tif")


def test_a_format_that_cannot_hold_the_results_is_refused_before_anything_is_done(tmp_path):
    outputs = Values(channels=2, dtype="float32", range=(0, 1))
    translator = Translator(model=Negative(), inputs=Values(channels=2, dtype="float32", range=(0, 1)), outputs=outputs)
    picture(tmp_path / "in" / "a.png")
    with pytest.raises(UsageError, match=r"\.png files cannot hold .*float32 from 0 to 1, 2 channels: take .*\.tif"):
        translate_files(translator, tmp_path / "in", tmp_path / "out", format="png")
    with pytest.raises(UsageError, match=r"format is 'pgn'; did you mean 'png'"):
        translate_files(translator, tmp_path / "in", tmp_path / "out", format="pgn")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("half", "columns"), [("left", slice(0, 6)), ("right", slice(6, 12))])
def test_pairs_give_their_input_half(tmp_path, half, columns):
    source = picture(tmp_path / "in" / "a.png")
    odd = picture(tmp_path / "in" / "odd.png", width=13)
    translator = Translator(model=Negative(), half=half)
    with pytest.raises(UsageError, match=r"odd.png is 13 x 8 pixels, an odd width, which has no two halves"):
        translate_files(translator, tmp_path / "in", tmp_path / "out", pairs=True)
    assert not (tmp_path / "out").exists()
    odd.unlink()
    translate_files(translator, tmp_path / "in", tmp_path / "out", pairs=True)
    np.testing.assert_array_equal(read_array(tmp_path / "out" / "a.png"), 255 - read_array(source)[:, columns])


# What is there already ----------------------------------------------------------------------------------------------


def test_results_that_are_there_are_refused_kept_or_replaced(tmp_path, translator):
    for name in "abcd":
        picture(tmp_path / "in" / f"{name}.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.png").write_text("mine")
    with pytest.raises(UsageError, match=r"1 of 4 results are there already \(.*b.png\): keep them with"):
        translate_files(translator, tmp_path / "in", tmp_path / "out")
    assert files(tmp_path / "out") == ["b.png"]
    done = translate_files(translator, tmp_path / "in", tmp_path / "out", existing="skip")
    assert [path.name for path in done.kept] == ["b.png"] and len(done.written) == 3
    assert (tmp_path / "out" / "b.png").read_text() == "mine"
    assert len(translate_files(translator, tmp_path / "in", tmp_path / "out", existing="overwrite").written) == 4
    check(tmp_path / "in" / "b.png", tmp_path / "out" / "b.png")
    assert translate_files(translator, tmp_path / "in", tmp_path / "out", existing="skip").written == []
    with pytest.raises(UsageError, match=r"existing is 'keep'; known: overwrite, refuse, skip"):
        translate_files(translator, tmp_path / "in", tmp_path / "out", existing="keep")


def test_a_folder_is_not_translated_into_itself_nor_its_results_again(tmp_path, translator):
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for out in (tmp_path / "in", tmp_path / "link"):
        with pytest.raises(UsageError, match="is the folder of the pictures"):
            translate_files(translator, tmp_path / "in", out, existing="overwrite", format="tiff")
    for existing in ("refuse", "overwrite"):  # the second time, too, there is one picture
        done = translate_files(translator, tmp_path / "in", tmp_path / "in" / "out", existing=existing)
        assert len(done.written) == 1
    assert files(tmp_path / "in") == ["a.png", "out/a.png"]


def test_two_pictures_that_would_become_one_file_are_refused(tmp_path, translator):
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "in" / "a.bmp")
    assert len(translate_files(translator, tmp_path / "in", tmp_path / "out").written) == 2  # endings tell them apart
    with pytest.raises(UsageError, match=r"a.bmp and .*a.png would both become .*a.tif: rename one"):
        translate_files(translator, tmp_path / "in", tmp_path / "out", format="tiff")


def test_a_file_in_the_place_of_the_folder(tmp_path, translator):
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError, match=r"out is no folder"):
        translate_files(translator, tmp_path / "in", tmp_path / "out")
    with pytest.raises(UsageError, match=r"out/deeper cannot be made: Not a directory"):
        translate_files(translator, tmp_path / "in", tmp_path / "out" / "deeper")


def test_links(tmp_path, translator):
    """Inputs may be reached through links; a result that is a link is replaced, not what it leads to."""
    real = picture(tmp_path / "elsewhere" / "real.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.png").symlink_to(real)
    (tmp_path / "in" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "round").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "broken.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link.png").symlink_to(real)
    before = real.read_bytes()
    done = translate_files(translator, tmp_path / "in", tmp_path / "out", existing="overwrite", on_bad="skip")
    assert files(tmp_path / "out") == ["link.png", "more/real.png"]
    assert len(done.bad) == 1 and "broken.png does not exist" in str(done.bad[0])
    assert real.read_bytes() == before and not (tmp_path / "out" / "link.png").is_symlink()
    check(real, tmp_path / "out" / "link.png")


# Bad pictures -------------------------------------------------------------------------------------------------------


def cut_off(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def test_an_empty_folder(tmp_path, translator):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    with pytest.raises(UsageError, match="in holds no pictures"):
        translate_files(translator, tmp_path / "in", tmp_path / "out")


def test_bad_pictures_are_refused_by_name_before_anything_is_done(tmp_path, translator):
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_bytes(b"")
    (tmp_path / "in" / "c.png").write_bytes(b"text")
    with pytest.raises(UsageError, match=r"b.png is empty .* \(and 1 more\); on_bad 'skip' leaves such pictures out"):
        translate_files(translator, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    done = translate_files(translator, tmp_path / "in", tmp_path / "out", on_bad="skip")
    assert files(tmp_path / "out") == ["a.png"]
    assert [str(error).split(" is ")[0].rpartition("/")[2] for error in done.bad] == ["b.png", "c.png"]
    (tmp_path / "in" / "a.png").unlink()
    with pytest.raises(UsageError, match=r"b.png is empty"):
        translate_files(translator, tmp_path / "in", tmp_path / "out", on_bad="skip")  # none is left


def test_a_picture_that_was_cut_off_is_noticed_when_it_is_decoded(tmp_path, translator):
    for name in "abc":
        picture(tmp_path / "in" / f"{name}.png", 60, 60)
    cut_off(tmp_path / "in" / "b.png")
    done = translate_files(translator, tmp_path / "in", tmp_path / "out", on_bad="skip")
    assert files(tmp_path / "out") == ["a.png", "c.png"] and "b.png is damaged" in str(done.bad[0])
    with pytest.raises(UsageError, match=r"b.png is damaged .*on_bad 'skip' leaves such pictures out"):
        translate_files(translator, tmp_path / "in", tmp_path / "other")
    assert not any(path.name.endswith(".part") for path in (tmp_path / "other").iterdir())


def test_pictures_that_the_model_does_not_take_are_bad_too(tmp_path, translator):
    picture(tmp_path / "in" / "a.png")
    write_picture(tmp_path / "in" / "hot.tif", np.full((8, 16, 1), 7, np.float32))
    done = translate_files(translator, tmp_path / "in", tmp_path / "out", on_bad="skip")
    assert files(tmp_path / "out") == ["a.png"] and "hot.tif holds values from 7 to 7" in str(done.bad[0])
    done = translate_files(translator, tmp_path / "in", tmp_path / "tiles", on_bad="skip", pixels=64, overlap=0)
    assert files(tmp_path / "tiles") == ["a.png"] and len(done.bad) == 1


# Disks and interruptions --------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_whole_files_alone_and_says_how_to_go_on(tmp_path, translator, monkeypatch):
    for index in range(30):
        picture(tmp_path / "in" / f"{index}.png")
    replace = os.replace

    def full(source, target):
        if Path(target).name == "7.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError, match=r"cannot write .*7.png: No space left on device; make room .*existing 'skip'"):
        translate_files(translator, tmp_path / "in", tmp_path / "out")
    written = files(tmp_path / "out")
    assert "7.png" not in written and not any(name.endswith(".part") for name in written)
    assert len(written) < 30  # it stopped there
    monkeypatch.undo()
    done = translate_files(translator, tmp_path / "in", tmp_path / "out", existing="skip")
    assert len(done.kept) == len(written) and len(done.written) == 30 - len(written)
    for index in range(30):
        check(tmp_path / "in" / f"{index}.png", tmp_path / "out" / f"{index}.png")


def test_a_folder_that_cannot_be_written_to(tmp_path, translator, monkeypatch):
    picture(tmp_path / "in" / "a.png")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(UsageError, match=r"out cannot be written to: mend its permissions, or choose another"):
        translate_files(translator, tmp_path / "in", tmp_path / "out")


def test_what_a_killed_translation_left_of_a_file_goes_when_that_is_made(tmp_path, translator):
    source = picture(tmp_path / "in" / "deep" / "a.png")
    (tmp_path / "out" / "deep").mkdir(parents=True)
    for name in (".a.png.0a1b2c3d.part", ".b.png.0a1b2c3d.part"):
        (tmp_path / "out" / "deep" / name).write_bytes(b"half")
    translate_files(translator, tmp_path / "in", tmp_path / "out")
    assert files(tmp_path / "out") == ["deep/.b.png.0a1b2c3d.part", "deep/a.png"]  # b.png is somebody else's
    check(source, tmp_path / "out" / "deep" / "a.png")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interruption_leaves_whole_files_alone_and_no_thread(tmp_path, translator, error):
    for index in range(40):
        picture(tmp_path / "in" / f"{index}.png")
    threads = set(threading.enumerate())

    def interrupt():
        if len(translator.model.batches) == 3:
            raise error

    translator.model.after = interrupt
    with pytest.raises(error):
        translate_files(translator, tmp_path / "in", tmp_path / "out")
    written = files(tmp_path / "out")
    assert 0 < len(written) <= 2 * translating.BATCH and not any(name.endswith(".part") for name in written)
    for name in written:
        check(tmp_path / "in" / name, tmp_path / "out" / name)
    assert set(threading.enumerate()) <= threads
