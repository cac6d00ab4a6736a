"""Splitting pairs: a name's part depends on nothing else, and files are where they belong, as they were."""

from __future__ import annotations

import errno

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from treadle.errors import RunError, UsageError
from treadle.gans import splitting
from treadle.gans.prepare import write_pairs
from treadle.gans.splitting import PARTS, parse_shares, part_of, placed
from treadle.images.reading import BadPicture

ALL = (1.0, 0.0, 0.0)
TENTHS = (0.8, 0.1, 0.1)
HALVES = (0.5, 0.25, 0.25)


@given(st.text(), st.integers(0, 2**63 - 1), st.tuples(*[st.integers(1, 9)] * 3))
def test_the_part_of_a_name_depends_on_nothing_else(name, seed, numbers):
    shares = parse_shares("/".join(map(str, numbers)))
    assert part_of(name, seed, shares) == part_of(name, seed, shares)
    assert part_of(name, seed, ALL) == "train"
    assert part_of(name, seed, (0.5, 0.0, 0.5)) in ("train", "test")
    assert part_of(name, seed, (0.5, 0.5, 0.0)) in ("train", "val")


def test_a_split_has_about_the_asked_shares_and_another_seed_another_split():
    names = [str(number) for number in range(3000)]
    parts = [part_of(name, 0, TENTHS) for name in names]
    assert abs(parts.count("train") - 2400) < 90 and abs(parts.count("val") - 300) < 70
    assert parts != [part_of(name, 1, TENTHS) for name in names]


def test_the_parts_of_a_split_are_those_that_were_written_down():
    """A data set prepared again, by any version, keeps its test pictures out of training."""
    assert [part_of(str(number), 0, TENTHS) for number in range(4)] == ["train", "train", "train", "val"]


@pytest.mark.parametrize("text", ["0.8/0.1/0.1", "8/1/1", "80/10/10"])
def test_shares_are_relative(text):
    assert parse_shares(text) == pytest.approx(TENTHS)


@pytest.mark.parametrize("text", ["", "1", "1/1", "1/1/1/1", "a/b/c", "0/1/1", "1/-1/1", "inf/1/1", "nan/1/1"])
def test_other_shares_are_refused(text):
    with pytest.raises(UsageError, match=r"expected the shares of train, val and test"):
        parse_shares(text)


# Files as they are


def picture(path, width=8, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (4, width, 3), np.uint8)).save(path)
    return path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}


@settings(max_examples=15, deadline=None)
@given(
    names=st.sets(st.text("abcdefgh", min_size=1, max_size=4), min_size=8, max_size=16),
    seed=st.integers(0, 2**63 - 1),
    link=st.booleans(),
)
def test_every_joined_picture_is_in_the_part_of_its_name_byte_for_byte(tmp_path_factory, names, seed, link):
    root = tmp_path_factory.mktemp("split")
    for number, name in enumerate(sorted(names)):
        picture(root / "in" / f"{name}.png", seed=number)
    if {part_of(name, seed, HALVES) for name in names} != set(PARTS):
        with pytest.raises(UsageError, match="give it a larger share"):
            placed(root / "in", shares=HALVES, seed=seed, link=link)
        return
    pairs, alone = placed(root / "in", shares=HALVES, seed=seed, link=link)
    counts, bad = write_pairs(pairs, root / "out")
    assert not alone and not bad and sum(counts.values()) == len(names)
    given = contents(root / "in")
    found = {part: contents(root / "out" / part) for part in PARTS}
    assert {name: data for part in found.values() for name, data in part.items()} == given
    for part, files in found.items():
        assert len(files) == counts.get(part, 0)
        for name in files:
            assert part == part_of(name.removesuffix(".png"), seed, HALVES)
            assert (root / "out" / part / name).is_symlink() == link


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("link", [False, True])
def test_partners_go_to_one_part_under_their_own_names(tmp_path, monkeypatch, inside, link):
    for index in range(20):
        picture(tmp_path / "in/A" / f"{index}.png", 7, index)
        picture(tmp_path / "in/B" / f"{index}.bmp", 9, 100 + index)
    monkeypatch.chdir(tmp_path)
    where = (tmp_path / "in",) if inside else (tmp_path / "in/A", (tmp_path / "in/B").relative_to(tmp_path))
    pairs, _ = placed(*where, shares=HALVES, link=link)
    counts, _ = write_pairs(pairs, tmp_path / "out")
    assert sum(counts.values()) == 20 and min(counts.values()) > 0
    assert not [entry for entry in (tmp_path / "out").iterdir() if entry.name not in "AB"]
    for side, ending in (("A", ".png"), ("B", ".bmp")):
        found = {part: contents(tmp_path / "out" / side / part) for part in PARTS}
        assert {part: len(files) for part, files in found.items()} == counts
        assert {name: data for files in found.values() for name, data in files.items()} == contents(
            tmp_path / "in" / side
        )
        for part, files in found.items():
            assert all(part_of(name.removesuffix(ending), 0, HALVES) == part for name in files)
    monkeypatch.chdir("/")
    Image.open(next((tmp_path / "out/B/train").iterdir())).load()  # a link leads there from anywhere


def test_what_cannot_be_used_is_refused_or_left_out_and_nothing_is_left_behind(tmp_path, monkeypatch):
    for index in range(4):
        picture(tmp_path / "in" / f"{index}.png", 8 if index else 7)
    (tmp_path / "in/3.png").write_bytes(b"no picture")
    pairs, _ = placed(tmp_path / "in", shares=ALL)
    with pytest.raises(UsageError, match=r"0\.png is 7 x 4 pixels, an odd width.*\(and 1 more\); --skip-bad"):
        write_pairs(pairs, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    counts, bad = write_pairs(pairs, tmp_path / "out", skip_bad=True)
    assert counts == {"train": 2} and all(isinstance(each, BadPicture) for each in bad) and len(bad) == 2

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(splitting.shutil, "copyfile", full)
    with pytest.raises(RunError, match=r"cannot write .*other: No space left on device; nothing is left of it"):
        write_pairs(pairs, tmp_path / "other", skip_bad=True)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in", "out"]


def test_pictures_without_a_partner_are_refused_or_left_out(tmp_path):
    for side, names in (("a", "123"), ("b", "134")):
        for name in names:
            picture(tmp_path / side / f"{name}.png")
    with pytest.raises(UsageError, match=r"2 of 6 pictures have no partner .* leave them out with --skip-unmatched"):
        placed(tmp_path / "a", tmp_path / "b", shares=ALL)
    pairs, alone = placed(tmp_path / "a", tmp_path / "b", shares=ALL, skip_unmatched=True)
    assert len(pairs) == 2 and [path.name for path in alone] == ["2.png", "4.png"]
    with pytest.raises(UsageError, match="none of the 2 pairs goes to"):
        placed(tmp_path / "a", tmp_path / "b", shares=TENTHS, skip_unmatched=True)
