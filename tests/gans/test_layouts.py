"""Paired data in one folder or in two: found by itself, paired by name, refused in one line where it cannot be."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from treadle.cli.main import main
from treadle.errors import UsageError
from treadle.gans.cyclegan import CycleGANConfig, CycleGANTrainer
from treadle.gans.layouts import PairFolders, pairs_in, partners
from treadle.gans.pix2pix import Pix2PixConfig, Pix2PixTrainer
from treadle.gans.sources import PairFolder
from treadle.images.folders import side_folders

SMALL = {"size": 16, "patch": 16, "features": 4, "d_features": 4, "downs": 2}
FLAGS = [
    *("--max-steps", "2", "--size", "16", "--features", "4", "--d-features", "4", "--patch", "16", "--device", "cpu"),
    *("--downs", "2"),
]


def shade(path, value, size=(16, 16)):
    """A file of one shade, by which it is known again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


def apart(root, layout, split="train", count=4):
    """Folders of A and B: inputs of the shades 0, 1 ... and targets of 100, 101 ..., names with other endings."""
    for side, base, ending in (("A", 0, "png"), ("B", 100, "bmp")):
        for index in range(count):
            shade(root / layout.format(split=split, side=side) / f"{index}.{ending}", base + index)
    return root


def shades(source):
    return [tuple(int(each[0, 0, 0]) for each in source.pair(index)) for index in range(len(source))]


LAYOUTS = ["{side}/{split}", "{split}{side}"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_folders_are_paired_by_name_in_either_direction(tmp_path, layout):
    apart(tmp_path, layout, count=12)
    for direction, expected in (
        ("AtoB", [(i, 100 + i) for i in range(12)]),
        ("BtoA", [(100 + i, i) for i in range(12)]),
    ):
        source = pairs_in(tmp_path, "train", direction, (1, 3), "refuse")
        assert shades(source) == expected
        assert source.pair(0)[0].shape == (16, 16, 1)
        assert source.name(10) == ("10.png" if direction == "AtoB" else "10.bmp")
        assert "A" in source.describe(3) and "3.bmp" in source.describe(3)
    assert pairs_in(tmp_path, "val", "AtoB", (3, 3), "refuse") is None
    before = source.fingerprint()
    shade(tmp_path / layout.format(split="train", side="A") / "3.png", 77)
    assert pairs_in(tmp_path, "train", "BtoA", (1, 3), "refuse").fingerprint() != before


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["pix2pix", "cyclegan"])
def test_it_is_trained_and_tested_on_as_it_lies(tmp_path, monkeypatch, capsys, layout, name):
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val", "test"):
        apart(tmp_path / "data", layout, split, 2)
    flags = FLAGS if name == "pix2pix" else [*FLAGS, "--blocks", "1"]
    assert main(["train", name, "--data", "data", "--run", "runs/r", *flags]) == 0, capsys.readouterr().err
    assert "validation_metrics" in (tmp_path / "runs/r/v001/summary.json").read_text()
    assert main(["test", "runs/r/v001"]) == 0, capsys.readouterr().err


def test_joined_pictures_come_first_as_ever(tmp_path):
    shade(tmp_path / "train" / "1.png", 9, (32, 16))
    apart(tmp_path, "{side}/{split}", "val", 3)
    apart(tmp_path, "{split}{side}", "train", 3)
    assert isinstance(pairs_in(tmp_path, "train", "AtoB", (3, 3), "refuse"), PairFolder)
    assert len(pairs_in(tmp_path, "val", "AtoB", (3, 3), "refuse")) == 3


def test_names_that_differ_are_refused_in_one_line_with_a_remedy(tmp_path):
    apart(tmp_path, "{side}/{split}")
    shade(tmp_path / "A/train/only.png", 1)
    shade(tmp_path / "B/train/other.png", 1)
    with pytest.raises(UsageError) as raised:
        pairs_in(tmp_path, "train", "AtoB", (3, 3), "refuse")
    said = str(raised.value)
    assert "2 of 10 pictures" in said and "only.png" in said and "other.png" in said
    assert said.endswith(": rename or remove them") and "\n" not in said
    for index in range(4):
        (tmp_path / f"A/train/{index}.png").rename(tmp_path / f"A/train/x{index}.png")
    with pytest.raises(
        UsageError, match=r"no picture in .*A/train has the name of one in .*B/train \(such as .*cyclegan"
    ):
        pairs_in(tmp_path, "train", "AtoB", (3, 3), "refuse")
    shade(tmp_path / "A/train/x1.jpg", 1)
    with pytest.raises(UsageError, match=r"x1\.jpg and x1\.png have the same name|x1\.png and x1\.jpg"):
        pairs_in(tmp_path, "train", "AtoB", (3, 3), "refuse")


def test_a_side_that_is_missing_is_named(tmp_path):
    shade(tmp_path / "A/train/1.png", 1)
    with pytest.raises(UsageError, match="has no folder 'B/train' with pictures to train on"):
        pairs_in(tmp_path, "train", "AtoB", (3, 3), "refuse")
    shade(tmp_path / "B/train/1.png", 1)
    shade(tmp_path / "B/test/1.png", 1)
    with pytest.raises(UsageError, match=r"A.test: no such folder; folders there: train"):
        pairs_in(tmp_path, "test", "AtoB", (3, 3), "refuse")
    assert side_folders(tmp_path, "val") is None
    with pytest.raises(UsageError, match="unknown split 'tset'; did you mean 'test'"):
        side_folders(tmp_path, "tset")


def test_a_bad_picture_takes_its_partner_with_it(tmp_path):
    apart(tmp_path, "{side}/{split}")
    (tmp_path / "B/train/2.bmp").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"1 of 4 pictures in .*B/train cannot be used: 2\.bmp is no picture"):
        pairs_in(tmp_path, "train", "AtoB", (3, 3), "refuse")
    with pytest.warns(UserWarning, match="left out"):
        source = pairs_in(tmp_path, "train", "AtoB", (3, 3), "skip")
    assert shades(source) == [(0, 100), (1, 101), (3, 103)]


@given(st.sets(st.text("aeé", min_size=1, max_size=3)), st.sets(st.text("aeé", min_size=1, max_size=3)))
def test_every_picture_has_a_partner_or_is_named(tmp_path_factory, left, right):
    root = tmp_path_factory.mktemp("names")
    for side, names in (("a", {"both", *left}), ("b", {"both", *right})):
        (root / side).mkdir()
        for name in names:
            (root / side / f"{name}.png").touch()
    both, alone = partners(root / "a", root / "b", skip_unmatched=True)
    assert both.keys() == {"both", *left} & {"both", *right}
    assert sorted(path.stem for path in alone) == sorted(left ^ right)
    if alone:
        with pytest.raises(UsageError, match=f"{len(alone)} of {len(left) + len(right) + 2} pictures have no partner"):
            partners(root / "a", root / "b")


def test_accents_are_one_name_however_a_system_writes_them(tmp_path):
    shade(tmp_path / "a" / (unicodedata.normalize("NFC", "é") + ".png"), 1)
    shade(tmp_path / "b" / (unicodedata.normalize("NFD", "é") + ".png"), 2)
    assert shades(PairFolders(tmp_path / "a", tmp_path / "b")) == [(1, 2)]


def test_max_samples_limits_what_is_trained_on_and_nothing_else(tmp_path):
    for split in ("train", "val"):
        apart(tmp_path, "{side}/{split}", split, 5)
        for index in range(5):
            shade(tmp_path / "joined" / split / f"{index}.png", index, (32, 16))
    for kind, settings in ((Pix2PixTrainer, Pix2PixConfig), (CycleGANTrainer, CycleGANConfig)):
        config = settings(**SMALL, max_samples=3)
        data = kind.load_data(config, tmp_path)
        assert [len(each) for each in data.values()] == [3, 5]
        seen = {round((data["data"][index][0][0, 0, 0].item() + 1) * 127.5) for index in range(3)}
        assert seen == {0, 1, 2}
        sizes = {"size": 32, "patch": 16, "downs": 2}
        packaged = kind.load_data(settings(**sizes, max_samples=7), None)
        assert (len(packaged["data"]), len(packaged["validation_data"])) == (7, 32)
    joined = Pix2PixTrainer.load_data(Pix2PixConfig(**SMALL, max_samples=2), tmp_path / "joined")
    assert [len(each) for each in joined.values()] == [2, 5]
    few = Pix2PixTrainer.load_data(Pix2PixConfig(**SMALL, max_samples=50), tmp_path)["data"]
    all_ = Pix2PixTrainer.load_data(Pix2PixConfig(**SMALL), tmp_path)["data"]
    assert len(few) == len(all_) == 5 and few.fingerprint() == all_.fingerprint()


def test_arrays_beside(tmp_path):
    """A pair's two files are read each by itself: their sizes may differ, and are brought to one."""
    shade(tmp_path / "a/1.png", 5, (20, 10))
    shade(tmp_path / "b/1.png", 9, (8, 8))
    x, y = PairFolders(tmp_path / "a", tmp_path / "b").pair(0)
    assert (x.shape, y.shape) == ((10, 20, 3), (8, 8, 3))
    assert np.unique(x).tolist() == [5]
