from typing import Any

import numpy as np
import pytest

from treadle.errors import UsageError
from treadle.tracts.phantom import make_phantom
from treadle.tracts.scoring.tractometer import score
from treadle.tracts.scoring.truth import TrueBundle, Truth, truth_of
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines

SPACE = Space(np.diag([2.0, 2.0, 2.0, 1.0]), (10, 6, 3))


def block(*bounds: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(SPACE.shape, bool)
    mask[tuple(slice(low, high) for low, high in bounds)] = True
    return mask


def truth(**given: Any) -> Truth:
    """Two bundles along x: "low" from a to b at y 0 and 1, "high" from c to d at y 4 and 5."""
    regions = {
        "a": block((0, 1), (0, 2), (0, 3)),
        "b": block((9, 10), (0, 2), (0, 3)),
        "c": block((0, 1), (4, 6), (0, 3)),
        "d": block((9, 10), (4, 6), (0, 3)),
    }
    low = TrueBundle("a", "b", **({"mask": block((0, 10), (0, 2), (1, 2))} | given))
    return Truth(SPACE, regions, {"low": low, "high": TrueBundle("d", "c", block((0, 10), (4, 6), (1, 2)))})


def along(*points: tuple[float, float]) -> np.ndarray:
    return np.array([(x, y, 1.5) for x, y in points])


STRAIGHT = along((0.5, 0.5), (9.5, 0.5))
"""Of "low", turned round; of "high"; from one to the other; from nowhere."""
OTHERS = [along((9.5, 1.5), (0.5, 1.5)), along((0.5, 4.5), (9.5, 4.5)), along((0.5, 0.5), (9.5, 4.5))]
LOST = along((0.5, 2.5), (4.5, 2.5))
DETOUR = along((0.5, 0.5), (4.5, 0.5), (4.5, 3.5), (5.5, 3.5), (5.5, 0.5), (9.5, 0.5))


def scored(lines: list[np.ndarray], known: Truth | None = None, **given: Any) -> dict[str, Any]:
    return score(Streamlines.of(lines), known or truth(), SPACE, **given).as_dict()


def test_lines_are_counted_by_what_they_link() -> None:
    found = scored([STRAIGHT, *OTHERS, LOST])
    counts = {name: found[name] for name in ("total_streamlines", "VB", "VS", "IB", "IC", "IS", "NC")}
    assert counts == {"total_streamlines": 5, "VB": 2, "VS": 3, "IB": 1, "IC": 1, "IS": 2, "NC": 1}
    assert (found["VS_ratio"], found["IC_ratio"], found["NC_ratio"]) == (3 / 5, 1 / 5, 1 / 5)
    assert found["bundle_wise"]["low"]["VS"] == 2 and found["bundle_wise"]["high"]["VS"] == 1
    assert found["bundle_wise"]["IB"] == {"a_d": {"IC": 1, "nb_voxels": 14}}


def test_volumes_are_compared_voxel_by_voxel() -> None:
    """20 true voxels; the detour goes through 10 of them, and through y 2 and 3 at x 4 and 5."""
    low = scored([DETOUR])["bundle_wise"]["low"]
    # Down the columns 4 and 5: (4, 1), (5, 1) are true, (4, 2), (5, 2), (4, 3), (5, 3) are not.
    assert (low["TP"], low["FP"], low["FN"]) == (12, 4, 8)
    assert low["OL"] == 12 / 20 and low["OR_pct_gt"] == 4 / 20 and low["OR_pct_vs"] == 4 / 16
    recall, precision = 12 / 20, 12 / 16
    assert low["f1"] == pytest.approx(2 * recall * precision / (recall + precision))
    assert (low["endpoints_OL"], low["endpoints_OR"]) == (2, 0)
    assert low["regions_OL"] == 2 / 4  # the regions have two true voxels each


def test_a_bundle_without_lines_and_one_without_a_mask() -> None:
    found = scored([STRAIGHT])
    high = found["bundle_wise"]["high"]
    assert (high["VS"], high["TP"], high["FP"], high["FN"], high["OL"], high["f1"]) == (0, 0, 0, 20, 0, 0)
    assert found["VB"] == 1 and found["mean_OL"] == (10 / 20 + 0) / 2
    skipped = scored([STRAIGHT], truth(mask=None))
    assert skipped["bundle_wise"]["low"] == {"VS": 1, "WPC": 0, "Scoring skipped": "No gt_mask provided"}
    assert skipped["mean_OL"] == 0


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"all_mask": block((0, 10), (0, 2), (1, 2))}, [True, False]),
        ({"all_mask": block((0, 10), (0, 4), (1, 2))}, [True, True]),
        ({"any_mask": block((4, 5), (3, 4), (0, 3))}, [False, True]),
        ({"any_mask": block((4, 5), (0, 4), (0, 3))}, [True, True]),
        ({"length": (10.0, 20.0)}, [True, False]),  # 18 and 30 mm
        ({"length": (20.0, 40.0)}, [False, True]),
        ({"length": (18.0, 40.0)}, [False, True]),  # the limits themselves are outside
        ({"along": ((17.0, 19.0), (-1.0, 1.0), (-1.0, 1.0))}, [True, True]),
        ({"along_abs": ((17.0, 19.0), (-1.0, 1.0), (-1.0, 1.0))}, [True, False]),
        ({"along_abs": ((17.0, 19.0), (11.0, 13.0), (-1.0, 1.0))}, [False, True]),
        ({"angle": 200.0}, [True, False]),
        ({"angle": 170.0}, [False, False]),  # seen from its middle, a line from end to end winds by 180 degrees
    ],
)
def test_what_is_asked_of_a_bundles_lines(given: dict[str, Any], kept: list[bool]) -> None:
    lines = Streamlines.of([STRAIGHT, DETOUR])
    found = score(lines, truth(**given), SPACE, wrong_paths=True)
    low = found.bundles["low"]
    assert [index in low.valid for index in (0, 1)] == kept
    assert [index in low.wrong for index in (0, 1)] == [not each for each in kept]
    summary = found.as_dict()
    assert summary["WPC"] == 2 - sum(kept) and summary["NC"] == summary["IS"] == 0
    merged = score(lines, truth(**given), SPACE).as_dict()
    assert merged["NC"] == merged["IS"] == 2 - sum(kept) and "WPC" not in merged


def shared_regions() -> Truth:
    """A second bundle that links the same regions as "low"."""
    known = truth()
    return Truth(SPACE, known.regions, {**known.bundles, "again": TrueBundle("b", "a", length=(0.0, 20.0))})


def test_a_line_of_two_bundles_counts_for_each_or_for_the_first() -> None:
    both = scored([STRAIGHT, DETOUR], shared_regions(), wrong_paths=True)
    assert (both["bundle_wise"]["low"]["VS"], both["bundle_wise"]["again"]["VS"]) == (2, 1)
    assert both["bundle_wise"]["again"]["WPC"] == 1 and both["total_streamlines"] == 4  # as scilpy counts
    first = scored([STRAIGHT, DETOUR], shared_regions(), wrong_paths=True, unique=True)
    assert (first["bundle_wise"]["low"]["VS"], first["bundle_wise"]["again"]["VS"]) == (2, 0)
    assert first["bundle_wise"]["again"]["WPC"] == 0 and first["total_streamlines"] == 2


def test_a_wrong_path_may_be_the_right_one_of_another_bundle() -> None:
    known = shared_regions()
    turned = Truth(SPACE, known.regions, {name: known.bundles[name] for name in ("again", "low")})
    for unique, wrong in ((False, 1), (True, 0)):
        found = scored([STRAIGHT, DETOUR], turned, wrong_paths=True, unique=unique)
        assert (found["bundle_wise"]["again"]["WPC"], found["WPC"]) == (wrong, wrong)
        assert found["bundle_wise"]["low"]["VS"] == 1 + (not unique)


def test_end_regions_can_be_grown() -> None:
    near = along((1.5, 0.5), (8.5, 0.5))
    assert scored([near])["VS"] == 0
    assert scored([near], dilate_ends=1)["VS"] == 1


def test_odd_lines_are_no_connections() -> None:
    odd = [np.zeros((0, 3)), along((0.5, 0.5)), np.array([[-5.0, 0.5, 1.5], [0.5, 0.5, 1.5]])]
    found = scored(odd)
    assert found["NC"] == found["total_streamlines"] == 3
    assert scored([])["total_streamlines"] == 0 and scored([])["VS_ratio"] == 0


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(UsageError, match="another grid"):
        score(Streamlines.of([STRAIGHT]), truth(), Space(np.eye(4), SPACE.shape))
    with pytest.raises(UsageError, match="NaN"):
        scored([STRAIGHT * np.nan])


def test_the_lines_of_a_phantom_score_nearly_perfectly() -> None:
    phantom = make_phantom(1)
    found = score(phantom.streamlines, truth_of(phantom), phantom.space).as_dict()
    assert found["VS_ratio"] == 1 and found["VB"] == 3 and found["IB"] == 0
    assert found["mean_OL"] > 0.97 and found["mean_OR_gt"] < 0.12
    turned = Streamlines(phantom.streamlines.points * [-1, 1, 1] + [24, 0, 0], phantom.streamlines.offsets)
    assert score(turned, truth_of(phantom), phantom.space).as_dict()["VS_ratio"] < 0.6


def test_a_detour_from_one_end_of_a_phantoms_bundle_to_the_other_is_none_of_its_lines() -> None:
    phantom = make_phantom(1)
    line = phantom.bundles["straight"][0]
    aside = line.copy()
    aside[len(line) // 2] += [0, 0, 6]  # voxels of 2 mm: there and back again
    found = score(Streamlines.of([line, aside]), truth_of(phantom), phantom.space).bundles["straight"]
    assert found.valid.tolist() == [0] and found.wrong.tolist() == [1]
