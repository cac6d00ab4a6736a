from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from treadle import DatasetFeed
from treadle.errors import RunError, UsageError
from treadle.gans.augmentation import Augmentation
from treadle.gans.images import PairedImages, UnpairedImages
from treadle.gans.sources import ArrayPairs, PairFolder, UnpairedFolders
from treadle.images.pixels import to_tensor

FACADES = Path(__file__).parents[3] / "shared" / "data" / "pairs_facades"

LIVELY = Augmentation(
    load_size=12, crop_size=8, rotate=True, jitter=0.3, noise=0.1, blur=1.0, elastic=1.0, chances={"elastic": 0.5}
)
CROP8 = Augmentation(load_size=9, crop_size=8)


def rng(seed=0):
    return np.random.default_rng(seed)


def noise(*shape, seed=0):
    return rng(seed).integers(0, 256, shape, dtype=np.uint8)


def folder(path, count, width):
    path.mkdir(parents=True)
    for index in range(count):
        Image.fromarray(noise(10, width, 3, seed=index)).save(path / f"{index}.png")
    return path


@pytest.fixture
def pairs(tmp_path):
    return PairFolder(folder(tmp_path / "train", 11, 30))


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


class Counted:
    """A source that counts how often it is read."""

    def __init__(self, source):
        self.source, self.reads = source, []

    def __len__(self):
        return len(self.source)

    def pair(self, index):
        self.reads.append(index)
        return self.source.pair(index)

    def __getattr__(self, name):
        return getattr(self.source, name)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tensors_are_from_minus_one_to_one_and_come_back_exactly(channels):
    picture = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(channels, axis=2)
    picture.flags.writeable = False
    tensor = to_tensor(picture)
    assert tensor.shape == (channels, 16, 16)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    assert (tensor[0, 0, 0].item(), tensor[0, -1, -1].item()) == (-1, 1)
    assert torch.equal(tensor[0].flatten(), torch.arange(256, dtype=torch.float32) / 127.5 - 1)
    back = ((tensor + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    np.testing.assert_array_equal(back.permute(1, 2, 0).numpy(), picture)


def test_a_sample_is_the_pair_resized(pairs):
    dataset = PairedImages(pairs, 10)
    assert len(dataset) == 11
    x, y = dataset[3]
    for tensor, half in zip((x, y), pairs.pair(3), strict=True):
        expected = Image.fromarray(half).resize((10, 10), Image.Resampling.BICUBIC)
        assert torch.equal(tensor, to_tensor(np.asarray(expected)))
    assert equal(dataset.sample(3, rng(1)), (x, y))
    assert dataset.name(3) == "3.png"
    assert dataset.describe(3) == pairs.describe(3)
    assert dataset.fingerprint() == pairs.fingerprint()
    with pytest.raises(IndexError):
        dataset[11]


def test_augmented_samples_are_what_the_augmentation_makes(pairs):
    dataset = PairedImages(pairs, 8, LIVELY)
    expected = LIVELY(*pairs.pair(5), rng(7))
    assert equal(dataset.sample(5, rng(7)), map(to_tensor, expected))
    assert not equal(dataset.sample(5, rng(8)), map(to_tensor, expected))
    assert equal(dataset[5], PairedImages(pairs, 8)[5])


def negative(x, y, rng):
    """A transform of one's own: sometimes the negative of the input, written in place, and a mark in both."""
    if rng.random() < 0.5:
        np.subtract(255, x, out=x)
    place = rng.integers(8)
    x[place], y[place] = 1, 2
    return x, y


def test_a_transform_of_ones_own_comes_after_the_augmentation_and_draws_from_the_same_generator(pairs):
    plain, own = PairedImages(pairs, 8, LIVELY), PairedImages(pairs, 8, LIVELY, transform=negative)
    seen = set()
    for seed in range(8):
        generator = rng(seed)
        x, y = LIVELY(*pairs.pair(3), generator)
        seen.add(generator.bit_generator.state["state"]["state"])
        expected = negative(x.copy(), y.copy(), generator)
        assert equal(own.sample(3, rng(seed)), map(to_tensor, expected))
        assert equal(plain.sample(3, rng(seed)), map(to_tensor, (x, y))), "what is kept in memory is not written into"
    assert len(seen) == 8
    assert equal(own[3], plain[3]), "evaluated pairs are as they are"
    assert equal(PairedImages(pairs, 8, transform=negative).sample(3, rng()), plain[3])


def test_a_transform_sees_both_of_two_unpaired_pictures():
    source = Two(noise(3, 9, 9, 3), noise(5, 9, 9, 3, seed=1))
    plain, own = UnpairedImages(source, 8, CROP8), UnpairedImages(source, 8, CROP8, transform=lambda a, b, rng: (b, a))
    for index in range(5):
        assert equal(own.sample(index, rng(index)), plain.sample(index, rng(index))[::-1])


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (lambda x, y, rng: x, r"augment gave uint8 \(8, 8, 3\): expected two arrays, uint8 \(8, 8, 3\) and uint8"),
        (lambda x, y, rng: (x, y[1:]), r"augment gave uint8 \(8, 8, 3\) and uint8 \(7, 8, 3\): expected"),
        (lambda x, y, rng: (x / 2, y), r"augment gave float64 \(8, 8, 3\) and uint8 \(8, 8, 3\): expected"),
        (lambda x, y, rng: None, "augment gave NoneType: expected"),
    ],
)
def test_what_a_transform_gives_is_checked(pairs, transform, said):
    with pytest.raises(UsageError, match=said):
        PairedImages(pairs, 8, LIVELY, transform=transform).sample(0, rng())


def test_labels_are_kept_in_evaluation_too():
    labels = np.where(noise(1, 20, 20, 1) < 128, np.uint8(0), np.uint8(255))
    source = ArrayPairs(labels, labels)
    x, y = PairedImages(source, 8, Augmentation(load_size=9, crop_size=8, label_input=True))[0]
    assert set(x.unique().tolist()) == {-1, 1}
    assert len(y.unique()) > 2


def kept_bytes(dataset):
    """Bytes of what is not read again when it is asked for once more: 4 channels of 8 x 8 pixels, and of 12 x 12."""

    def ask():
        for index in range(len(dataset)):
            for side, get in ((8, dataset.__getitem__), (12, lambda index: dataset.sample(index, rng()))):
                before = len(counted.reads)
                get(index)
                yield 4 * side * side if len(counted.reads) == before else 0

    counted = dataset.source = Counted(dataset.source)
    sum(ask())  # now it keeps as much as it ever will
    return sum(ask())


@settings(deadline=None)
@given(st.integers(0, 20), st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=30))
def test_the_cache_never_changes_a_sample_and_stays_within_its_memory(kilobytes, asked):
    source = ArrayPairs(noise(5, 9, 11, 3), noise(5, 14, 6, 1))
    cached = PairedImages(source, 8, LIVELY, cache_mb=kilobytes / 1000)
    plain = PairedImages(source, 8, LIVELY, cache_mb=0)
    for place, (index, still) in enumerate(asked):
        first, second = (each[index] if still else each.sample(index, rng(place)) for each in (cached, plain))
        assert equal(first, second)
    kept = kept_bytes(cached)
    assert kept <= kilobytes * 1000 and (kept > 0) == (kilobytes > 0)
    assert kept_bytes(plain) == 0


def test_what_fits_is_read_once_and_what_came_first_stays(pairs):
    size = 2 * 12 * 12 * 3
    for room, kept in ((11, 11), (4, 4), (0, 0)):
        counted = Counted(pairs)
        dataset = PairedImages(counted, 8, LIVELY, cache_mb=(room * size + 1) / 1e6)
        for _ in range(3):
            for index in range(11):
                dataset.sample(index, rng())
        assert len(counted.reads) == kept + 3 * (11 - kept)


def test_a_copy_for_another_process_starts_with_an_empty_cache(pairs):
    dataset = PairedImages(pairs, 8, LIVELY)
    expected = [dataset.sample(index, rng(index)) for index in range(11)]
    copy = pickle.loads(pickle.dumps(dataset))
    assert len(pickle.dumps(dataset)) < 5000
    copy.source = Counted(copy.source)
    for _ in range(2):
        assert all(equal(copy.sample(index, rng(index)), expected[index]) for index in range(11))
        assert copy.source.reads == list(range(11)), "all are read once, and kept then"


def batches(dataset, epochs=(0, 1), **settings):
    feed = DatasetFeed(dataset, 3, seed=5, **settings)
    try:
        return [batch for epoch in epochs for batch in feed.iterate(epoch)]
    finally:
        feed.close()


def test_samples_are_the_same_bits_for_any_number_of_workers_and_any_cache(pairs, tmp_path):
    folder(tmp_path / "trainA", 4, 12)
    folder(tmp_path / "trainB", 7, 20)
    generated = ArrayPairs(noise(5, 300, 300, 3), noise(5, 9, 9, 3))  # large enough to be shared between processes
    cases = [
        (PairedImages, pairs, LIVELY, 2),
        (PairedImages, generated, LIVELY, 1),
        (UnpairedImages, UnpairedFolders(tmp_path), LIVELY.geometry(), 1),
    ]
    for kind, source, augmentation, workers in cases:
        of_own = {"transform": negative}
        expected = batches(kind(source, 8, augmentation, cache_mb=0, **of_own))
        assert not equal(expected[0], expected[len(expected) // 2])  # another epoch
        cached, spread = (kind(source, 8, augmentation, megabytes, **of_own) for megabytes in (512, 0.003))
        for found in (batches(cached), batches(spread, workers=workers)):
            assert len(found) == len(expected)
            assert all(map(equal, found, expected))


def test_an_epoch_can_be_entered_anywhere(pairs):
    feed = DatasetFeed(PairedImages(pairs, 8, LIVELY), 2, seed=3)
    whole, rest = list(feed.iterate(1)), list(feed.iterate(1, 4))
    assert all(map(equal, rest, whole[4:]))
    assert len(rest) == len(whole) - 4


def test_a_file_that_is_bad_when_decoded_names_itself(pairs):
    path = pairs.files[4]
    path.write_bytes(path.read_bytes()[:-60])
    feed = DatasetFeed(PairedImages(pairs, 8, LIVELY), 1, shuffle=False)
    with pytest.raises(RunError, match=r"sample 4 of PairedImages \(.*4\.png\) could not be made: .*4\.png is damaged"):
        list(feed.iterate(0))


def test_a_changed_file_changes_the_feed_s_fingerprint(pairs):
    was = DatasetFeed(PairedImages(pairs, 8), 1).fingerprint()
    assert DatasetFeed(PairedImages(pairs, 8, LIVELY), 2).fingerprint() == was
    values = noise(10, 30, 3, seed=9)
    values[0, 0, 0] ^= 1
    Image.fromarray(values).save(pairs.files[9])
    assert DatasetFeed(PairedImages(pairs, 8), 1).fingerprint() != was


# Unpaired --------------------------------------------------------------------------------------------------------


def shades(*values):
    """Pictures told by their shade."""
    return np.array(values, np.uint8)[:, None, None, None].repeat(4, 1).repeat(4, 2).repeat(3, 3)


class Two:
    def __init__(self, a, b):
        self.a, self.b = ArrayPairs(a, a).a, ArrayPairs(b, b).b


CROP = Augmentation(load_size=4, crop_size=4, flip=0)


def shade(tensor):
    return round((tensor[0, 0, 0].item() + 1) * 127.5)


@pytest.mark.parametrize("swap", [False, True])
def test_an_epoch_goes_through_the_longer_source_and_draws_from_the_other(swap):
    long, short = shades(*range(100, 112)), shades(1, 2, 3)
    source = Two(short, long) if swap else Two(long, short)
    dataset = UnpairedImages(source, 4, CROP)
    assert len(dataset) == 12
    drawn = []
    for index in range(12):
        for seed in range(20):
            ours, partner = map(shade, dataset.sample(index, rng(20 * index + seed))[:: -1 if swap else 1])
            assert ours == 100 + index
            drawn.append(partner)
            assert equal(dataset.sample(index, rng(seed)), dataset.sample(index, rng(seed)))
    assert set(drawn[:20]) == {1, 2, 3}  # of one index, in other epochs
    assert all(55 < drawn.count(partner) < 105 for partner in (1, 2, 3))
    still = [tuple(map(shade, dataset[index]))[:: -1 if swap else 1] for index in range(12)]
    assert still == [(100 + index, 1 + index % 3) for index in range(12)]
    assert list(map(shade, UnpairedImages(source, 4).sample(4, rng(9)))) == list(map(shade, dataset[4]))
    assert dataset.name(4) == ("1 + 4" if swap else "4 + 1")
    assert dataset.describe(11) == "11"
    with pytest.raises(IndexError):
        dataset[12]


def test_each_of_two_unpaired_pictures_is_moved_on_its_own():
    picture = noise(1, 12, 12, 3)
    dataset = UnpairedImages(ArrayPairs(picture, picture), 8, LIVELY.geometry())
    assert sum(equal(*map(list, zip(dataset.sample(0, rng(seed)), strict=True))) for seed in range(20)) < 3


def test_unpaired_fingerprints_know_both_sides():
    prints = {
        UnpairedImages(Two(a, b), 4).fingerprint()
        for a, b in ((shades(1, 2), shades(3)), (shades(1, 2), shades(4)), (shades(1, 5), shades(3)))
    }
    assert len(prints) == 3


def test_settings_that_cannot_be_honoured_are_refused(pairs):
    with pytest.raises(UsageError, match="size is 10, but the augmentation's crop_size 8"):
        PairedImages(pairs, 10, LIVELY)
    with pytest.raises(UsageError, match="leave out what changes the input alone, such as jitter"):
        UnpairedImages(Two(shades(1), shades(2)), 8, LIVELY)
    for megabytes in (-1, float("nan")):
        with pytest.raises(UsageError, match="cache_mb is"):
            PairedImages(pairs, 8, cache_mb=megabytes)


@pytest.mark.skipif(not FACADES.is_dir(), reason="the shared facades are not on this machine")
def test_real_facades():
    feed = DatasetFeed(PairedImages(PairFolder(FACADES / "train", "BtoA"), 256, Augmentation()), 1, seed=0)
    x, y = next(iter(feed.iterate(0)))
    assert x.shape == y.shape == (1, 3, 256, 256)
    for picture in (x, y):
        assert -1 <= picture.min() < picture.max() <= 1
        assert picture.std() > 0.05
