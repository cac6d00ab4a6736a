import numpy as np
import pytest

from treadle.errors import UsageError
from treadle.tracts.panels import VIEWS, draw, picture
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
SPACE = Space(AFFINE, (20, 20, 20))


def line(axis: int) -> np.ndarray:
    points = np.full((30, 3), 10.0)
    points[:, axis] = np.linspace(2, 18, 30)
    return points


def lit(picture: np.ndarray) -> np.ndarray:
    """Where there is more than the paper."""
    return np.argwhere(picture.max(axis=2) > 60)


@pytest.mark.parametrize(("axis", "view"), [(0, "axial"), (1, "axial"), (2, "coronal")])
def test_colours_say_the_direction(axis: int, view: str) -> None:
    (seen,) = draw(Streamlines.of([line(axis)]), SPACE, views=[view], size=120)
    assert seen.shape == (120, 120, 3) and seen.dtype == np.uint8
    colour = seen[tuple(lit(seen).T)].mean(axis=0)
    assert colour.argmax() == axis and colour[axis] > 1.8 * np.delete(colour, axis).max()


def test_right_is_right_and_up_is_front_in_an_axial_view() -> None:
    points = line(0)[15:]  # to the right of the middle
    points[:, 1] = 16  # and in front of it
    for affine in (AFFINE, np.diag([-1.0, 1, 1, 1]) @ AFFINE):  # stored from left to right, or the other way round
        space = Space(affine, SPACE.shape)
        (seen,) = draw(Streamlines.of([points]), space, views=["axial"], size=120)
        rows, columns = lit(seen).mean(axis=0)
        assert rows < 45
        assert columns > 75 if affine is AFFINE else columns < 45


def test_what_is_nearer_hides_what_is_farther() -> None:
    below, above = line(0), line(1)
    below[:, 2], above[:, 2] = 4, 16
    for lines in ([below, above], [above, below]):
        (seen,) = draw(Streamlines.of(lines), SPACE, views=["axial"], size=120)
        assert seen[58:62, 58:62].mean(axis=(0, 1)).argmax() == 1
    colour = draw(Streamlines.of([above, below]), SPACE, views=["coronal"], size=400)[0]
    assert lit(colour)[:, 0].min() < 130 < 270 < lit(colour)[:, 0].max()  # up is up, and a line seen from its end a dot


def test_a_slice_lies_behind_and_colours_may_be_given() -> None:
    volume = np.zeros(SPACE.shape)
    volume[:10] = 1
    (seen,) = draw(Streamlines.of([]), SPACE, volume=volume, views=["axial"], size=120)
    assert seen[:, 10:50].mean() > 2.5 * seen[:, 70:110].mean()
    red = draw(Streamlines.of([line(1)]), SPACE, views=["axial"], size=120, colors=np.array([[1.0, 0, 0]]))[0]
    assert red[tuple(lit(red).T)].mean(axis=0).argmax() == 0


def test_all_views_are_drawn_and_put_side_by_side() -> None:
    pictures = draw(Streamlines.of([line(0), line(1), line(2)]), SPACE, views=list(VIEWS), size=60, most=2)
    assert len(pictures) == len(VIEWS) and all(len(lit(each)) > 20 for each in pictures)
    sheet = picture(pictures, gap=4)
    assert sheet.shape == (68, len(VIEWS) * 64 + 4, 3)
    assert np.array_equal(sheet[4:64, 4:64], pictures[0])


def test_unknown_views_and_volumes_of_another_shape_are_refused() -> None:
    with pytest.raises(UsageError, match=r"'axail'.*axial"):
        draw(Streamlines.of([]), SPACE, views=["axail"])
    with pytest.raises(UsageError, match="the volume has the shape"):
        draw(Streamlines.of([]), SPACE, volume=np.zeros((3, 3, 3)))
