from __future__ import annotations

import torch

from treadle.tracts.models.previous import PreviousDirections

PREVIOUS = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 3, 0], [0, 0, 4], [0, 0, 0], [0, 0, 5]])
OFFSETS = torch.tensor([0, 4, 6])


def test_the_latest_come_first_and_lines_do_not_mix() -> None:
    found = PreviousDirections(3, normalize=False)(PREVIOUS, OFFSETS)
    assert found.tolist() == [
        [0, 0, 0, 0, 0, 0, 0, 0, 0],
        [2, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 3, 0, 2, 0, 0, 0, 0, 0],
        [0, 0, 4, 0, 3, 0, 2, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 5, 0, 0, 0, 0, 0, 0],
    ]


def test_normalised_they_have_length_1_where_they_have_any() -> None:
    found = PreviousDirections(2, normalize=True)(PREVIOUS, OFFSETS)
    assert found[3].tolist() == [0, 0, 1, 0, 1, 0] and not found[4].any()


def test_none_are_seen_where_none_are_asked_for() -> None:
    none = PreviousDirections(0, normalize=True, embedding="nn", size=8)
    assert none.width == 0 and none(PREVIOUS, OFFSETS).shape == (6, 0)
    assert none.advance(none.start(2), PREVIOUS[:2])[0].shape == (2, 0)
    assert not list(none.parameters())
