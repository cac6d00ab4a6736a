"""What shows where nothing is: white, black, anything, or what the photographs are on the whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from treadle.cameras.background import BLACK, WHITE, Background, mean_color
from treadle.cameras.camera import Camera
from treadle.cameras.capture import Photograph

CAMERA = Camera(2, 2, 2.0, 2.0, 1.0, 1.0, np.eye(4))


class Views:
    """Photographs in memory."""

    def __init__(self, *photographs: Photograph) -> None:
        self.photographs = photographs

    @property
    def cameras(self) -> Sequence[Camera]:
        return [photograph.camera for photograph in self.photographs]

    def __len__(self) -> int:
        return len(self.photographs)

    def __getitem__(self, index: int) -> Photograph:
        return self.photographs[index]

    def fingerprint(self) -> str:
        return ""


def photograph(value: int, channels: int = 3, mask: np.ndarray | None = None) -> Photograph:
    return Photograph(CAMERA, np.full((2, 2, channels), value, np.uint8), mask)


@pytest.mark.parametrize(
    ("chosen", "channels", "trained", "tested"),
    [
        ("auto", 3, BLACK, BLACK),
        ("auto", 4, None, WHITE),
        ("random", 3, None, BLACK),
        ("white", 3, WHITE, WHITE),
        ("black", 4, BLACK, BLACK),
        ("mean", 3, (0.2, 0.2, 0.2), (0.2, 0.2, 0.2)),
    ],
)
def test_what_a_setting_means(chosen: str, channels: int, trained: object, tested: object) -> None:
    found = Background.of(chosen, Views(photograph(51, channels)))
    assert found == Background(trained, tested)  # type: ignore[arg-type]


def test_a_random_one_is_what_the_generator_draws_and_others_draw_nothing() -> None:
    generator, device = torch.Generator().manual_seed(3), torch.device("cpu")
    before = generator.get_state()
    assert Background(WHITE, WHITE).in_training(generator, device).tolist() == [1, 1, 1]
    assert torch.equal(generator.get_state(), before)
    drawn = Background(None, BLACK).in_training(generator, device)
    assert torch.equal(drawn, torch.rand(3, generator=torch.Generator().manual_seed(3)))
    assert Background(None, BLACK).in_tests(device).tolist() == [0, 0, 0]


def test_the_mean_colour_counts_what_is_opaque_and_not_masked() -> None:
    half = np.array([[True, True], [False, False]])
    masked = photograph(255, mask=half)
    clear = Photograph(
        CAMERA,
        np.concatenate([np.full((2, 2, 3), 90, np.uint8), 255 * half[..., None]], 2, dtype=np.uint8, casting="unsafe"),
    )
    assert mean_color(Views(masked, photograph(0))) == pytest.approx((2 / 6,) * 3)
    assert mean_color(Views(clear)) == pytest.approx((90 / 255,) * 3)
    assert str(Background(WHITE, WHITE)) == "white"
    assert str(Background.of("mean", Views(photograph(51)))) == "the colour 0.20, 0.20, 0.20"
