from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.errors import UsageError
from treadle.kernels import codebook
from treadle.kernels.codebook import chosen
from treadle.kernels.codebook_reference import chosen_reference

BOTH = pytest.mark.parametrize("function", [chosen, chosen_reference])
FIRST = (0, 40, 140, 500)


def make(dtype=torch.float32, first=FIRST, entries=4, features=2):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(first[-1], entries, generator=generator, dtype=dtype)
    dictionary = torch.randn(len(first) - 1, entries, features, generator=generator, dtype=dtype)
    return logits.requires_grad_(), dictionary.requires_grad_()


def gradients(function, logits, dictionary, first=FIRST):
    out = function(logits, dictionary, first)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(5), dtype=out.dtype)
    weights[::3] = 0  # rows that no point has touched
    return (out.detach(), *torch.autograd.grad(out, (logits, dictionary), weights))


@BOTH
def test_a_row_is_the_entry_with_the_largest_logit(function):
    logits, dictionary = make()
    found = function(logits, dictionary, FIRST)
    for row in (0, 39, 40, 139, 140, 499):
        level = sum(row >= first for first in FIRST[1:])
        assert torch.equal(found[row], dictionary[level, logits[row].argmax()])
    ties = torch.zeros(3, 4)
    assert torch.equal(function(ties, dictionary[:1], (0, 3)), dictionary[0, :1].expand(3, 2))


@BOTH
def test_the_gradient_to_the_logits_is_that_of_the_softmax_weighted_mean(function):
    logits, dictionary = make(torch.float64, (0, 30))
    weights = torch.randn(30, 2, dtype=torch.float64)
    for sharpness in (1.0, 2.5):
        (found,) = torch.autograd.grad(function(logits, dictionary, (0, 30), sharpness), logits, weights)
        (expected,) = torch.autograd.grad((sharpness * logits).softmax(1) @ dictionary[0], logits, weights)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
        assert expected.abs().max() > 0.1


def test_the_gradient_to_the_dictionary_equals_finite_differences():
    logits, dictionary = make(torch.float64, (0, 5, 9))
    fixed = logits.detach()
    for function in (chosen, chosen_reference):
        assert torch.autograd.gradcheck(lambda d, f=function: f(fixed, d, (0, 5, 9)), (dictionary,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_equal_the_reference(dtype):
    logits, dictionary = make(dtype)
    ours, theirs = (gradients(function, logits, dictionary) for function in (chosen, chosen_reference))
    assert torch.equal(ours[0], theirs[0])
    for a, b in zip(ours[1:], theirs[1:], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-13)
    assert (ours[1][::3] == 0).all()


@pytest.mark.parametrize("threads", [2, 4])
def test_bitwise_equal_on_any_number_of_threads(threads, monkeypatch):
    logits, dictionary = make()
    monkeypatch.setattr(codebook.threads, "parts_for", lambda work: 1)
    expected = gradients(chosen, logits, dictionary)
    monkeypatch.setattr(codebook.threads, "parts_for", lambda work: threads)
    assert all(torch.equal(a, b) for a, b in zip(expected, gradients(chosen, logits, dictionary), strict=True))


@BOTH
def test_a_nan_is_seen_and_large_logits_are_no_trouble(function):
    logits, dictionary = make()
    flawed = logits.detach().clone()
    flawed[7, 2], flawed[8] = math.nan, torch.tensor([1e30, -1e30, 0, 0])
    flawed.requires_grad_()
    found = function(flawed, dictionary, FIRST)
    assert found[7].isnan().all() and found[[6, 8, 9]].isfinite().all()
    (grad,) = torch.autograd.grad(found[8].sum(), flawed)
    assert grad[8].isfinite().all() and (grad[6] == 0).all()


def test_no_rows_in_a_level():
    logits, dictionary = make(first=(0, 3, 3, 8))
    for a, b in zip(*(gradients(f, logits, dictionary, (0, 3, 3, 8)) for f in (chosen, chosen_reference)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("logits", "dictionary", "message"),
    [
        (torch.zeros(500), None, "do not fit"),
        (torch.zeros(499, 4), None, "do not fit"),
        (torch.zeros(500, 5), None, "do not fit"),
        (None, torch.zeros(2, 4, 2), "do not fit"),
        (torch.zeros(500, 4, dtype=torch.float64), None, "same floating dtype"),
        (torch.zeros(500, 4, device="meta"), None, "same device"),
    ],
)
def test_what_does_not_fit_is_named(logits, dictionary, message):
    good = make()
    with pytest.raises(UsageError, match=message):
        chosen(good[0] if logits is None else logits, good[1] if dictionary is None else dictionary, FIRST)


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=4), bits=st.integers(1, 5), seed=st.integers(0, 99))
def test_any_shape_agrees_with_the_reference(sizes, bits, seed):
    first = tuple(sum(sizes[:k]) for k in range(len(sizes) + 1))
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(first[-1], 2**bits, generator=generator).requires_grad_()
    dictionary = torch.randn(len(sizes), 2**bits, 2, generator=generator).requires_grad_()
    for a, b in zip(*(gradients(f, logits, dictionary, first) for f in (chosen, chosen_reference)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
