from __future__ import annotations

import pytest

from treadle.errors import UsageError
from treadle.tracts.getters.settings import GETTERS, GetterSettings, build_getter


def test_every_getter_can_be_asked_for() -> None:
    for name in GETTERS:
        getter = build_getter(GetterSettings(getter=name, ends=True, classes=162), 10)  # type: ignore[arg-type]
        assert getter.name == name and getter.ends


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"getter": "sphere", "classes": 724}, "classes is 724: expected 10 f"),
        ({"getter": "l2", "entropy_weight": 1.0}, "entropy_weight is 1.0: expected 0 for the getter 'l2'"),
        ({"getter": "smooth-sphere", "end_weight": 2.0}, "end_weight is 2.0: expected 1 for the getter"),
        ({"getter": "mixture"}, "getter is 'mixture': expected one of"),
        ({"getter_dropout": 1.0}, "getter_dropout is 1.0: expected 0 or more and below 1"),
        ({"normalize_targets": 0.0}, "normalize_targets is 0.0: expected above 0, or null"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        GetterSettings(**given)  # type: ignore[arg-type]
