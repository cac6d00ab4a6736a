"""One process against 2, 3 and 4, for examples and recipes: `make proof-parallel`; test_packs.py has the quick ones.

Where `step` draws nothing of its own, weights are those of one process but for the last bits of sums. With fixed parts
they are the same bits, noise and all. In any case all processes have the same digest, which each save has compared. At
the end a table says how far weights were apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.parallel.packs import differ, differ_on_average, train
from tests.parallel.together import together

pytestmark = pytest.mark.timeout(1800)

SIZES = (2, 3, 4)
ROWS: dict[str, list[str]] = {}
"""What the table says of each comparison."""


@pytest.fixture(scope="module", autouse=True)
def table(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print the table when all is done."""
    yield
    capture: Any = request.config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("\n\nlargest difference of any weight from one process")
        for name, found in ROWS.items():
            print(f"{name:52} {'   '.join(found)}")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs are, and the data that they share."""
    return tmp_path_factory.mktemp("runs")


_alone: dict[str, dict[str, Any]] = {}
"""What one process comes to, by the run."""


def alone(place: Path, name: str, settings: dict[str, Any], nudge: int = 0) -> dict[str, Any]:
    """What one process comes to; with a `nudge` from other last bits of its weights."""
    run = f"{name}-{settings}-{nudge}"
    if run not in _alone:
        (_alone[run],) = together(1, place, train, name, str(place / f"{len(_alone)}-alone"), settings, 0, nudge)
    assert "error" not in _alone[run], _alone[run]
    return _alone[run]


def several(place: Path, size: int, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """What so many processes come to, all of them to the same."""
    run = place / f"{len(list(place.iterdir()))}-of-{size}"
    found: list[dict[str, Any]] = together(size, place, train, name, str(run), settings)
    assert "error" not in found[0], found
    assert {one["digest"] for one in found} == {found[0]["digest"]}
    return found[0]


def say(row: str, found: str) -> None:
    ROWS.setdefault(row, []).append(found)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("mlp", 1.8e-7),
        ("gan", 1.9e-7),
        ("growing_gaussians", 3.1e-6),
        ("ragged_sequences", 3e-5),
        ("image", 1e-6),
        ("splats", 1e-6),
        ("splats_adc", 1e-6),
    ],
)
def test_the_weights_are_those_of_one_process(place: Path, name: str, most: float, size: int) -> None:
    one, many = alone(place, name, {}), several(place, size, name, {})
    assert many["step"] == one["step"]
    found = differ(one, many)
    say(name, f"{size}: {found:.1e}")
    assert found <= most


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["nerf", "sdf"])
def test_fields_are_as_near_to_one_process_as_that_is_to_itself_from_other_last_bits(
    place: Path, name: str, size: int
) -> None:
    """After one step weights are those of one process but for last bits; what becomes of these is the run's own doing.

    Adam divides by the gradients' own size: where these cancel, a row takes a whole step by what is left of them. So
    the measure is one process whose weights begin one float further. Which rows there are is the same.
    """
    first = {"max_steps": 1}
    one, many = alone(place, name, first), several(place, size, name, first)
    found = differ(one, many)
    say(f"{name}, after one step", f"{size}: {found:.1e}")
    assert found <= 1e-6
    whole, many = alone(place, name, {}), several(place, size, name, {})
    nudged = max(differ_on_average(whole, alone(place, name, {}, nudge)) for nudge in (1, 2, 3))
    found = differ_on_average(whole, many)
    say(f"{name}, mean difference after 24 steps", f"{size}: {found:.1e}")
    ROWS[f"{name}, the same of one process, nudged"] = [f"1: {nudged:.1e}"]
    assert many["step"] == whole["step"] and found <= 2 * nudged < 0.02


@pytest.mark.parametrize("parts", [3, 4])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("gan_2d", {}),
        ("growing_gaussians", {}),
        ("ragged_sequences", {}),
        ("image", {}),
        ("pix2pix", {}),  # with a pool of pictures
        ("cyclegan", {}),
        ("splats", {"batch_size": 3}),
        ("splats_adc", {"batch_size": 3}),
        ("nerf", {}),
        ("sdf", {}),
        ("tracts", {}),
        ("tracts-autoencoder", {}),
    ],
)
def test_with_parts_the_bits_are_those_of_one_process(
    place: Path, name: str, settings: dict[str, Any], parts: int
) -> None:
    settings = {"parts": parts} | settings
    one = alone(place, name, settings)
    for size in [size for size in SIZES if parts % size == 0]:
        many = several(place, size, name, settings)
        say(f"{name}, parts={parts}", f"{size}: {'same bits' if many['digest'] == one['digest'] else 'DIFFERS'}")
        assert many["digest"] == one["digest"]


@pytest.mark.parametrize("name", ["splats_adc", "nerf"])
def test_with_parts_a_run_that_edits_rows_goes_on_in_other_numbers_of_processes(place: Path, name: str) -> None:
    settings = {"parts": 4} | ({"batch_size": 4} if name == "splats_adc" else {})
    one = alone(place, name, settings)
    run = place / f"{name}-resumed"
    assert together(4, place, train, name, str(run), settings, 9) == [{}] * 4
    assert together(1, place, train, name, str(run), settings | {"resume": True}, 17) == [{}]
    found = together(2, place, train, name, str(run), settings | {"resume": True})
    say(f"{name}, parts=4, resumed in 4, 1, 2", "same bits" if found[0]["digest"] == one["digest"] else "DIFFERS")
    assert [each["digest"] for each in found] == [one["digest"]] * 2
