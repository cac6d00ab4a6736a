from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from treadle.errors import UsageError
from treadle.gans.sources import ArrayPairs, ArrayPictures, PairFolder, PictureFolder, UnpairedFolders, content_hash
from treadle.images.folders import list_pictures
from treadle.images.reading import BadPicture

FACADES = Path(__file__).parents[3] / "shared" / "data" / "pairs_facades"


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def pairs(tmp_path):
    """Twelve pairs, 6 x 8 pixels each, named 0.png to 11.png."""
    for index in range(12):
        write(tmp_path / "train" / f"{index}.png", noise(6, 16, 3, seed=index))
    return tmp_path / "train"


def test_halves_are_input_and_target_by_direction(pairs):
    whole = noise(6, 16, 3, seed=10)
    forwards, backwards = PairFolder(pairs), PairFolder(str(pairs), "BtoA")
    assert len(forwards) == 12
    for source, (x, y) in ((forwards, (whole[:, :8], whole[:, 8:])), (backwards, (whole[:, 8:], whole[:, :8]))):
        np.testing.assert_array_equal(source.pair(10)[0], x)
        np.testing.assert_array_equal(source.pair(10)[1], y)
        assert source.name(10) == "10.png"
        assert source.describe(10) == str(pairs / "10.png")


def test_channels_are_those_of_input_and_target(pairs):
    gray, colour = PairFolder(pairs, channels=(1, 4)).pair(0)
    assert gray.shape == (6, 8, 1)
    assert colour.shape == (6, 8, 4)
    back = PairFolder(pairs, "BtoA", channels=(1, 3)).pair(0)
    assert [part.shape[2] for part in back] == [1, 3]
    right = Image.fromarray(noise(6, 16, 3)[:, 8:]).convert("L")
    np.testing.assert_array_equal(back[0][..., 0], np.asarray(right))


def test_odd_widths_and_bad_files_are_refused_in_one_message_or_skipped(pairs):
    write(pairs / "5.png", noise(6, 17, 3))
    (pairs / "7.png").write_bytes(b"")
    text = r"5\.png is 17 x 6 pixels, an odd width, which has no two halves, 7\.png is empty \(0 bytes\)"
    with pytest.raises(UsageError, match=rf"2 of 12 pictures in .* cannot be used: {text}: mend or remove"):
        PairFolder(pairs)
    with pytest.warns(UserWarning, match=rf"2 of 12 pictures in .* left out: {text}$") as caught:
        source = PairFolder(pairs, on_bad="skip")
    assert caught[0].filename == __file__
    assert len(source) == 10
    assert source.skipped == ["5.png", "7.png"]
    assert [source.name(index) for index in range(10)] == [f"{index}.png" for index in (0, 1, 2, 3, 4, 6, 8, 9, 10, 11)]


def test_files_that_go_bad_later_name_themselves(pairs):
    source = PairFolder(pairs)
    write(pairs / "3.png", noise(6, 17, 3))
    with pytest.raises(BadPicture, match=r"3\.png is 17 x 6 pixels, .*: make A and B equally wide"):
        source.pair(3)
    (pairs / "4.png").unlink()
    with pytest.raises(BadPicture, match=r"4\.png does not exist"):
        source.pair(4)


def test_unknown_settings_are_named(pairs):
    with pytest.raises(UsageError, match="direction is 'BtoB'; did you mean"):
        PairFolder(pairs, "BtoB")
    with pytest.raises(UsageError, match="channels is 0"):
        PairFolder(pairs, channels=(3, 0))
    with pytest.raises(UsageError, match=r"channels is \(3,\): expected two numbers"):
        PairFolder(pairs, channels=(3,))
    with pytest.raises(UsageError, match=r"channels is 1\.5"):
        PictureFolder(pairs, 1.5)


def test_fingerprints_follow_the_pictures_and_not_their_place(pairs, tmp_path):
    was = PairFolder(pairs).fingerprint()
    shutil.copytree(pairs, tmp_path / "copy")
    assert PairFolder(tmp_path / "copy").fingerprint() == was
    values = noise(6, 16, 3, seed=3)
    values[2, 2, 2] ^= 1
    write(pairs / "3.png", values)
    assert PairFolder(pairs).fingerprint() != was


def test_unpaired_folders(tmp_path):
    for name, count in (("trainA", 3), ("trainB", 5), ("testA", 1), ("validB", 1), ("validA", 2)):
        for index in range(count):
            write(tmp_path / name / f"{index}.png", noise(4, 4, 3, seed=index))
    source = UnpairedFolders(tmp_path, channels=(1, 3))
    assert (len(source.a), len(source.b)) == (3, 5)
    assert source.a.picture(0).shape == (4, 4, 1)
    np.testing.assert_array_equal(source.b.picture(4), noise(4, 4, 3, seed=4))
    assert source.b.describe(4) == str(tmp_path / "trainB" / "4.png")
    turned = UnpairedFolders(tmp_path, direction="BtoA")
    assert (len(turned.a), len(turned.b)) == (5, 3)
    assert len(UnpairedFolders(tmp_path, "val").a) == 2
    with pytest.raises(UsageError, match=r"testB: no such folder; folders there: testA, "):
        UnpairedFolders(tmp_path, "test")
    for side, count in (("A", 2), ("B", 6)):
        for index in range(count):
            write(tmp_path / "other" / side / "train" / f"{index}.png", noise(4, 4, 3, seed=index))
    assert [len(UnpairedFolders(tmp_path / "other", direction="BtoA").a)] == [6]


def test_bad_unpaired_files_are_refused_or_skipped(tmp_path):
    for name in ("trainA/1.png", "trainA/2.png", "trainB/1.png"):
        write(tmp_path / name, noise(4, 5, 3))
    (tmp_path / "trainA/1.png").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"1 of 2 pictures in .*trainA cannot be used: 1\.png is no picture"):
        UnpairedFolders(tmp_path)
    with pytest.warns(UserWarning, match="1 of 2 pictures in .*trainA left out"):
        source = UnpairedFolders(tmp_path, on_bad="skip")
    assert (source.a.skipped, source.b.skipped) == (["1.png"], [])


def test_arrays():
    a, b = noise(3, 4, 5, 3), noise(3, 6, 6, 1, seed=1)
    pairs = ArrayPairs(a, list(b), (f"house {index}" for index in range(3)))
    assert len(pairs) == 3
    assert pairs.name(2) == pairs.describe(2) == "house 2"
    np.testing.assert_array_equal(pairs.pair(2)[0], a[2])
    np.testing.assert_array_equal(pairs.pair(2)[1], b[2])
    assert ArrayPairs(a, b).name(1) == "1"
    prints = {
        ArrayPairs(*arguments).fingerprint()
        for arguments in ((a, b), (a, b, ["x", "y", "z"]), (a + 1, b), (a, b + 1), (a[::-1], b), (a[:2], b[:2]))
    }
    assert len(prints) == 6
    assert ArrayPairs(a.copy(), b.copy()).fingerprint() in prints


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ArrayPairs(noise(2, 4, 4, 3), noise(3, 4, 4, 3)), "2 inputs and 3 targets"),
        (lambda: ArrayPictures(noise(2, 4, 4)), r"uint8 of shape \(2, 4, 4\): expected uint8, uint16 or float32 \(N"),
        (lambda: ArrayPictures(np.zeros((2, 4, 4, 3))), "pictures are float64"),
        (lambda: ArrayPictures(noise(0, 4, 4, 3)), "expected uint8"),
        (lambda: ArrayPictures([noise(4, 4, 3), noise(4, 5, 3)]), "pictures differ in size"),
        (lambda: ArrayPairs(noise(2, 4, 4, 3), noise(2, 4, 4, 3), ["one"]), "1 names for 2 pictures"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.skipif(not FACADES.is_dir(), reason="the shared facades are not on this machine")
def test_real_facades():
    source = PairFolder(FACADES / "train", "BtoA")
    assert len(source) == 88
    labels, photograph = source.pair(0)
    assert labels.shape == photograph.shape == (256, 256, 3)
    # A label map has few colours, even after JPEG: most pixels lie near one of a coarse grid's.
    colours = [len(np.unique(picture // 32 @ np.array([64, 8, 1]))) for picture in (labels, photograph)]
    assert colours[0] < colours[1]
    assert len(PairFolder(FACADES / "val")) == 12


def test_the_hash_knows_names_and_contents_but_not_places_and_times(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    values = noise(6, 10, 3)
    for name in ("1.png", "2.png"):
        write(first / name, values)
    shutil.copytree(first, second)
    os.utime(second / "1.png", (1, 1))
    was = content_hash(list_pictures(first))
    assert content_hash(list_pictures(second)) == was
    values[3, 3, 1] ^= 1
    write(second / "2.png", values)
    assert content_hash(list_pictures(second)) != was
    shutil.copy(first / "2.png", second / "2.png")
    assert content_hash(list_pictures(second)) == was
    (second / "2.png").rename(second / "3.png")
    assert content_hash(list_pictures(second)) != was
    with pytest.raises(BadPicture, match=r"2\.png cannot be read"):
        content_hash([second / "2.png"])
