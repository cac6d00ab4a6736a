from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.checkpoint.plain import is_stateless
from treadle.errors import UsageError
from treadle.gans.diffaugment import POLICIES, DiffAugment

sizes = st.tuples(st.integers(1, 20), st.integers(1, 20))


def drawn(policy, x, seed=0):
    augment = DiffAugment(policy)
    torch.manual_seed(seed)
    return augment, augment.draw(len(x), x.shape[2:])


@settings(deadline=None)
@given(size=sizes, n=st.integers(1, 4), seed=st.integers(0, 2**16))
def test_translation_is_a_shift_of_each_sample_filled_with_zeros(size, n, seed):
    x = torch.arange(1.0, 1 + n * 2 * size[0] * size[1]).reshape(n, 2, *size)
    augment, draw = drawn("translation", x, seed)
    moved = augment(x, draw)
    for sample in range(n):
        down, right = draw.shift[sample].tolist()
        expected = torch.zeros_like(x[sample])
        for row in range(size[0]):
            for column in range(size[1]):
                if 0 <= row - down < size[0] and 0 <= column - right < size[1]:
                    expected[:, row, column] = x[sample, :, row - down, column - right]
        assert moved[sample].equal(expected)


@settings(deadline=None)
@given(size=sizes, seed=st.integers(0, 2**16))
def test_cutout_empties_a_square_of_half_the_size(size, seed):
    x = torch.ones(3, 2, *size)
    augment, draw = drawn("cutout", x, seed)
    cut = augment(x, draw)
    for sample in range(3):
        expected = torch.ones(size)
        (row, column), holes = draw.centre[sample].tolist(), [int(side / 2 + 0.5) for side in size]
        top, left = row - holes[0] // 2, column - holes[1] // 2
        expected[max(top, 0) : top + holes[0], max(left, 0) : left + holes[1]] = 0
        assert (cut[sample] == expected).all()
        assert (expected == 0).any()


def test_color_is_brightness_then_saturation_then_contrast():
    x = torch.rand(4, 3, 5, 7) * 2 - 1
    augment, draw = drawn("color", x)
    colored = augment(x, draw)
    for sample in range(4):
        brightness, saturation, contrast = (
            getattr(draw, name)[sample].item() for name in ("brightness", "saturation", "contrast")
        )
        y = x[sample].double() + brightness
        y = (y - y.mean(0)) * saturation + y.mean(0)
        y = (y - y.mean()) * contrast + y.mean()
        torch.testing.assert_close(colored[sample].double(), y, rtol=1e-5, atol=1e-6)


def test_what_is_drawn_covers_its_range_and_nothing_else():
    torch.manual_seed(0)
    draw = DiffAugment().draw(20000, (24, 9))
    ranges = {"brightness": (-0.5, 0.5), "saturation": (0, 2), "contrast": (0.5, 1.5)}
    for name, (low, high) in ranges.items():
        values = getattr(draw, name)
        assert values.shape == (20000, 1, 1, 1)
        assert low <= values.min() < low + 0.01 and high - 0.01 < values.max() <= high
        assert values.mean().item() == pytest.approx((low + high) / 2, abs=0.01)
    # Sizes 24 and 9: at most 3 and 1 pixels; the square has 12 and 5 (odd: its centre stays within the picture).
    assert [draw.shift[:, axis].unique().tolist() for axis in (0, 1)] == [list(range(-3, 4)), [-1, 0, 1]]
    assert [draw.centre[:, axis].unique().tolist() for axis in (0, 1)] == [list(range(25)), list(range(9))]
    assert torch.corrcoef(draw.shift.T.double())[0, 1].abs() < 0.05


def test_condition_and_picture_are_moved_and_cut_alike_and_only_the_picture_recolored():
    x, y = torch.rand(3, 1, 16, 16) + 1, torch.rand(3, 3, 16, 16) + 1
    augment, draw = drawn(",".join(POLICIES), x)
    geometry = DiffAugment("translation,cutout")
    condition, picture = augment(x, draw, color=False), augment(y, draw)
    assert condition.equal(geometry(x, draw)) and not condition.equal(x)
    assert ((condition == 0) == (picture == 0)).all()
    assert not picture.equal(geometry(y, draw))
    assert augment(y, draw).equal(picture)  # the same draw, the same result
    joint = geometry(torch.cat([x, DiffAugment("color")(y, draw)], 1), draw)
    assert torch.cat([condition, picture], 1).equal(joint)


@pytest.mark.parametrize("policy", [*POLICIES, ",".join(POLICIES)])
def test_gradients_pass_through(policy):
    x = torch.rand(2, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    augment, draw = drawn(policy, x)
    assert torch.autograd.gradcheck(lambda x: augment(x, draw), (x,))
    assert torch.autograd.gradgradcheck(lambda x: augment(x, draw).square(), (x,))


def test_it_runs_with_deterministic_kernels_and_under_autocast():
    x = torch.rand(2, 3, 8, 8).bfloat16().requires_grad_()
    augment, draw = drawn("color,translation,cutout", x)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            colored, plain = augment(x, draw), augment(x, draw, color=False)
        colored.sum().backward()
    finally:
        torch.use_deterministic_algorithms(before)
    assert colored.dtype == torch.float32 and plain.dtype == torch.bfloat16 and x.grad.abs().max() > 0


@settings(max_examples=50, deadline=None)
@given(names=st.lists(st.sampled_from(POLICIES), unique=True), space=st.sampled_from(["", " "]))
def test_policies_are_names_joined_by_commas_and_their_order_does_not_matter(names, space):
    x = torch.rand(2, 3, 8, 8)
    augment, draw = drawn(f",{space}".join(names), x)
    ordered = DiffAugment(",".join(name for name in POLICIES if name in names))
    assert augment(x, draw).equal(ordered(x, draw))
    assert not names or not augment(x, draw).equal(x)


def test_no_policy_changes_nothing():
    x = torch.rand(2, 3, 8, 8)
    assert DiffAugment("")(x) is x


def test_without_a_draw_each_call_draws_anew_from_the_global_generator():
    x, augment = torch.rand(2, 3, 8, 8), DiffAugment()
    torch.manual_seed(5)
    first, second = augment(x), augment(x)
    torch.manual_seed(5)
    assert augment(x).equal(first) and not first.equal(second)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("colour", r"'colour' is unknown; did you mean 'color'\?"),
        ("color;cutout", r"'color;cutout' is unknown"),
        ("color,", r"'' is unknown; known: color, cutout, translation"),
        ("color,cutout,color", r"'color' comes twice"),
    ],
)
def test_policies_that_are_none(policy, message):
    with pytest.raises(UsageError, match=message):
        DiffAugment(policy)


def test_a_draw_for_others_is_refused_and_the_augmentation_has_no_state():
    augment = DiffAugment()
    draw = augment.draw(2, (8, 8))
    for shape in ((3, 3, 8, 8), (2, 3, 8, 9)):
        with pytest.raises(UsageError, match=r"the draw is for 2 pictures of 8 x 8, here are"):
            augment(torch.rand(shape), draw)
    assert is_stateless(augment)
