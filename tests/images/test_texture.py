from __future__ import annotations

import math
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from treadle.errors import UsageError
from treadle.images.texture import FIGURES, Texture, lattice, luminance, sharpness, texture, texture_of

FACADES = Path(__file__).parents[3] / "shared" / "data" / "pairs_facades"
GRAY = torch.tensor([0.299, 0.587, 0.114])


def noise(seed=0, shape=(4, 1, 64, 64), std=0.2):
    """White noise, far above what counts as unseen, and seldom clipped."""
    return torch.from_numpy(np.random.default_rng(seed).normal(0, std, shape)).float()


def squares(side, height=64, width=64):
    """A pattern of squares of -1 and 1 that repeats after `side` pixels; of 2 pixels: a checkerboard."""
    rows, columns = np.indices((height, width)) // (side // 2)
    return torch.from_numpy((rows + columns) % 2 * 2.0 - 1).float()


# Sharpness -----------------------------------------------------------------------------------------------------------


def test_sharpness_is_the_ratio_of_the_mean_absolute_differences_of_neighbours():
    target, output = noise(0, (2, 9, 13)), noise(1, (2, 9, 13))  # two channels: their mean counts

    def by_hand(picture):
        gray = picture.clamp(-1, 1).double().mean(0)
        down = [abs(float(gray[y + 1, x] - gray[y, x])) for y in range(8) for x in range(13)]
        across = [abs(float(gray[y, x + 1] - gray[y, x])) for y in range(9) for x in range(12)]
        return sum(down) / len(down) + sum(across) / len(across)

    assert sharpness(output, target) == pytest.approx(by_hand(output) / by_hand(target), rel=1e-12)


def test_twice_the_contrast_is_twice_as_sharp_in_any_shape():
    for shape in ((1, 40), (40, 1), (7, 3), (64, 96)):
        target = noise(0, (3, *shape), 0.05)
        assert sharpness(2 * target, target) == pytest.approx(2)


def test_colours_are_seen_as_their_luminance_and_alpha_is_left_out():
    colours = noise(0, (3, 20, 30))
    gray = torch.einsum("chw,c->hw", colours.clamp(-1, 1), GRAY)
    np.testing.assert_allclose(luminance(colours[None])[0], gray.numpy(), atol=1e-6)
    with_alpha = torch.cat([colours, noise(1, (1, 20, 30))])
    assert np.array_equal(luminance(with_alpha[None]), luminance(colours[None]))
    assert sharpness(with_alpha, torch.cat([colours, torch.ones(1, 20, 30)])) == 1


def test_the_sharpness_of_flat_pictures():
    flat = torch.zeros(1, 8, 8)
    assert sharpness(flat, flat) == 1
    assert sharpness(flat, noise(0, (1, 8, 8))) == 0
    assert sharpness(noise(0, (1, 8, 8)), flat) == math.inf


def test_pictures_that_are_not_finite_have_no_figures():
    broken = noise(0, (1, 40, 40))
    broken[0, 3, 3] = math.nan
    whole = noise(1, (1, 40, 40))
    for output, target in ((broken, whole), (whole, broken), (broken, torch.zeros(1, 40, 40))):
        assert math.isnan(sharpness(output, target)) and math.isnan(lattice(output, target))
        assert all(math.isnan(value) for value in texture(output[None], target[None]).values())


# The spectrum ---------------------------------------------------------------------------------------------------------


def spectrum(outputs, targets):
    return texture(outputs, targets)["spectrum"]


def test_the_spectrum_as_one_writes_it_down():
    """Against sums over cosines and sines, no fast transform: window, rings, means and floor in plain loops."""
    sets = noise(0, (2, 1, 12, 20)), noise(1, (3, 1, 12, 20)) * torch.linspace(0.1, 1, 20)
    window = np.outer(*(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1, n + 1) / (n + 1)) for n in (12, 20)))

    def rings(pictures):
        sums, cells = np.zeros(33), np.zeros(33)
        for gray in pictures[:, 0].clamp(-1, 1).double().numpy():
            seen = (gray - (gray * window).sum() / window.sum()) * window
            for k in range(12):
                for m in range(20):
                    down, across = min(k, 12 - k) / 12, min(m, 20 - m) / 20
                    ring = round(64 * math.hypot(down, across))
                    if 1 <= ring <= 32:
                        wave = np.exp(-2j * np.pi * (k * np.arange(12)[:, None] / 12 + m * np.arange(20) / 20))
                        sums[ring] += abs((seen * wave).sum()) ** 2 / (window**2).sum()
                        cells[ring] += 1
        there = cells > 0
        return sums[there] / cells[there]

    floor = (10 / 255) ** 2
    wanted = np.abs(np.log((rings(sets[0]) + floor) / (rings(sets[1]) + floor))).mean() / 2
    assert spectrum(*sets) == pytest.approx(wanted, rel=1e-9)


def test_half_the_amplitude_at_all_frequencies_is_wrong_by_a_factor_of_two():
    loud = noise(0, (4, 3, 64, 96), 0.25)
    floor = (10 / 255) ** 2  # of luminance, whose variance is that of the channels times these squares
    power = 0.25**2 * float((GRAY**2).sum())
    wanted = math.log((power + floor) / (power / 4 + floor)) / 2
    assert spectrum(loud / 2, loud) == pytest.approx(wanted, abs=0.02) == spectrum(loud, loud / 2)
    assert wanted == pytest.approx(math.log(2), abs=0.1)


def test_the_spectrum_does_not_care_where_things_are_and_sets_need_not_be_pairs():
    some, others = noise(0, (8, 1, 64, 64)), noise(1, (5, 1, 64, 64))
    assert spectrum(some.flip(0), some) == pytest.approx(0, abs=1e-12)
    assert spectrum(some, others) < 0.1 < spectrum(some, others / 2)


def test_what_nobody_can_see_does_not_count():
    faint = noise(0, std=0.2 / 255)
    assert spectrum(faint, torch.zeros(1, 1, 64, 64)) < 0.01
    assert texture(faint, torch.zeros(1, 1, 64, 64))["lattice"] < 0.1


def test_a_window_keeps_the_edges_of_a_picture_out_of_its_spectrum():
    """A slope is as smooth as can be; repeated, it has a step at its edge, which is power at every frequency."""
    slope = torch.linspace(-1, 1, 64).expand(1, 1, 64, 64)
    assert spectrum(slope, torch.zeros(1, 1, 64, 64)) < 0.4


# Lattices -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [2, 4, 8])
@pytest.mark.parametrize("size", [(64, 64), (100, 45)])
def test_patterns_of_2_4_and_8_pixels_are_seen_in_noise(side, size):
    clean = noise(0, (1, *size))
    assert lattice(clean, noise(1, (1, *size))) < 3.5
    assert lattice(clean + 0.15 * squares(side, *size), clean) > 7


@pytest.mark.parametrize("side", [3, 5, 6, 13])
def test_other_patterns_are_no_lattice(side):
    clean = noise(0, (1, 64, 64))
    stripes = torch.cos(2 * math.pi * torch.arange(64) / side).expand(64, 64)
    assert lattice(clean + 0.15 * stripes, clean) < 2


def test_a_checkerboard_stands_out_by_what_its_amplitude_says():
    """Its peak has a^2 (sum of the window)^2 / (sum of its squares), noise s^2."""
    clean = noise(0, (20, 1, 64, 64), 0.2)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1, 33) / 33)
    power = 0.1**2 * (window.sum() ** 2 / (window**2).sum()) ** 2
    wanted = 10 * math.log10(1 + power / (0.2**2 + (10 / 255) ** 2))
    assert texture(clean + 0.1 * squares(2), clean)["lattice"] == pytest.approx(wanted, abs=1)


def test_one_direction_is_enough():
    clean = noise(0, (1, 64, 64))
    stripes = (torch.arange(64) % 2 * 2.0 - 1).expand(64, 64)
    assert min(lattice(clean + 0.1 * stripes, clean), lattice(clean + 0.1 * stripes.T, clean)) > 6


def test_a_lattice_that_the_target_has_is_none():
    clean = noise(0, (1, 64, 64))
    tiled = clean + 0.2 * squares(8)
    assert lattice(tiled, tiled) == 0
    assert lattice(clean, tiled) < 0.1  # none where there should be one is no checkerboard
    assert lattice(noise(1, (1, 64, 64)) + 0.2 * squares(8), tiled) < 4.5


def test_a_dip_of_the_targets_is_nothing_to_stand_out_of():
    fine = noise(0, (3, 64, 64))
    smooth = (fine + fine.roll(1, 1) + fine.roll(1, 2) + fine.roll((1, 1), (1, 2))) / 4  # no pattern of 2 pixels
    assert lattice(torch.zeros(3, 64, 64), smooth) == 0
    assert lattice(fine + 0.15 * squares(2), smooth) > 6


def test_fine_noise_and_flat_pictures_have_no_lattice():
    flat = torch.zeros(3, 64, 64)
    assert lattice(flat, flat) == 0
    assert texture(noise(0, (20, 1, 64, 64)), noise(1, (20, 1, 64, 64)))["lattice"] < 1


# All together ---------------------------------------------------------------------------------------------------------


@cache
def photographs(split):
    """The left halves of the pairs."""
    found = []
    for file in sorted((FACADES / split).glob("*.jpg"))[:8]:
        with Image.open(file) as pair:
            found.append(pair.convert("RGB").crop((0, 0, pair.width // 2, pair.height)).resize((128, 128)))
    return found


def fronts(split="val", blurred=0.0):
    """Photographs of fronts, (N, 3, 128, 128)."""
    pictures = [np.asarray(photo.filter(ImageFilter.GaussianBlur(blurred))).copy() for photo in photographs(split)]
    return torch.from_numpy(np.stack(pictures)).movedim(-1, 1) / 127.5 - 1


@pytest.mark.skipif(not FACADES.is_dir(), reason="needs the shared pairs")
def test_on_photographs_of_fronts():
    targets = torch.cat([fronts(), fronts("test")])
    fog = texture(torch.cat([fronts(blurred=2), fronts("test", blurred=2)]), targets)
    assert fog["sharpness"] == pytest.approx(0.3, abs=0.02)
    assert fog["spectrum"] == pytest.approx(1.25, abs=0.1)
    assert fog["lattice"] < 1
    halves = texture(targets[::2], targets[1::2])
    assert halves["sharpness"] == pytest.approx(1, abs=0.15)
    assert halves["spectrum"] < 0.25 and halves["swd"] < 0.1 and halves["lattice"] < 1


@pytest.mark.skipif(not FACADES.is_dir(), reason="needs the shared pairs")
def test_neither_fog_nor_a_checkerboard_nor_noise_pleases_the_figure_that_chooses():
    targets, slight, strong = fronts(), fronts(blurred=0.5), fronts(blurred=2)
    found = {
        "the targets": targets,
        "slightly blurred": slight,
        "strongly blurred": strong,
        "with a checkerboard": targets + 10 / 127.5 * squares(2, 128, 128),
        "with a coarser one": targets + 10 / 127.5 * squares(4, 128, 128),
        "noisy": targets + noise(0, targets.shape, 20 / 127.5),
        "fog with a checkerboard": strong + 8 / 127.5 * squares(2, 128, 128),
        "fog with noise": strong + noise(0, targets.shape, 20 / 127.5),
        "flat": targets.mean((2, 3), keepdim=True).expand_as(targets),
    }
    figures = {name: texture(outputs, targets) for name, outputs in found.items()}
    score = {name: figure["texture"] for name, figure in figures.items()}
    assert score["the targets"] == 0 == min(score.values())
    assert score["slightly blurred"] < score["strongly blurred"] < score["flat"]
    for spoilt in ("with a checkerboard", "with a coarser one", "noisy", "slightly blurred"):
        assert score[spoilt] > 0.3
    # Fog that is as sharp as the targets by a checkerboard is worse than fog.
    assert figures["fog with a checkerboard"]["sharpness"] == pytest.approx(1.3, abs=0.1)
    assert score["fog with a checkerboard"] > score["strongly blurred"]
    assert score["fog with noise"] > score["slightly blurred"]


def test_the_figure_that_chooses_is_a_sum():
    found = texture(noise(0), noise(1) / 2)
    assert tuple(found) == FIGURES
    wanted = abs(math.log(found["sharpness"])) + found["spectrum"] + found["swd"] + found["lattice"] / 20
    assert found["texture"] == pytest.approx(wanted)
    assert texture_of({"sharpness": 0.0, "spectrum": 0, "swd": 0, "lattice": 0}) == pytest.approx(math.log(100))


def test_batches_come_to_what_the_whole_comes_to():
    outputs, targets = noise(0, (5, 3, 40, 48)), noise(1, (5, 3, 40, 48))
    sets = Texture()
    for start in (0, 2, 4):
        sets.add(outputs[start : start + 2], targets[start : start + 2])
    assert sets.figures() == pytest.approx(texture(outputs, targets), rel=1e-9)


def test_sets_may_differ_in_size_and_their_pictures_in_shape():
    sets = Texture()
    sets.add(noise(0, (3, 3, 40, 64)), noise(1, (1, 3, 33, 20)))
    sets.add(noise(2, (1, 3, 64, 40)), torch.empty(0, 3, 8, 8))
    assert all(math.isfinite(value) for value in sets.figures().values())


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (2, 3), (5, 9), (8, 8), (16, 24), (17, 33), (31, 100)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_small_pictures_of_any_channels_have_figures(shape, channels):
    pictures, others = noise(0, (2, channels, *shape)), noise(1, (2, channels, *shape))
    assert texture(pictures, pictures) == dict.fromkeys(FIGURES, 0.0) | {"sharpness": 1.0}
    found = texture(pictures, others)
    finite = [math.isfinite(value) for value in found.values()]
    assert all(finite)


def test_an_empty_set_has_no_figures():
    assert all(math.isnan(value) for value in Texture().figures().values())
    sets = Texture()
    sets.add(noise(0), torch.empty(0, 1, 64, 64))
    assert all(math.isnan(value) for value in sets.figures().values())


def test_what_is_no_picture_is_refused():
    for broken in (torch.zeros(3, 8, 8), torch.zeros(2, 0, 8, 8)):
        with pytest.raises(UsageError, match="batch of pictures"):
            texture(broken, broken)
    with pytest.raises(UsageError, match="one picture"):
        sharpness(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))


def test_nothing_is_drawn_from_the_global_streams():
    np.random.seed(3)
    torch.manual_seed(3)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    found = texture(noise(0), noise(1))
    assert found == texture(noise(0), noise(1))
    assert np.array_equal(before[0], np.random.get_state()[1]) and torch.equal(before[1], torch.get_rng_state())


def test_a_dozen_pictures_cost_less_than_a_third_of_a_second():
    outputs, targets = noise(0, (12, 3, 128, 128)), noise(1, (12, 3, 128, 128))
    seconds = []
    for _ in range(3):
        start = time.process_time()
        texture(outputs, targets)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.3
