"""What `--log trackio=WHERE` means; what reaches trackio is read back in services/."""

from __future__ import annotations

import sys

import pytest

from treadle.errors import UsageError
from treadle.sinks.trackio import Trackio


def test_where_it_goes_is_said_in_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREADLE_TRACKIO_PYTHON", sys.executable)
    assert Trackio.at("lines").options == {"project": "lines"} and Trackio.at(None).options == {}
    assert Trackio("lines", group="a").mark == Trackio("lines").mark != Trackio("others").mark
    for where in ("", "/", ". ."):
        with pytest.raises(UsageError, match="is no project of trackio: a name has letters, digits, - or _"):
            Trackio.at(where)


def test_without_the_sdk_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TREADLE_TRACKIO_PYTHON", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"trackio is not installed: pip install 'treadle\[trackio\]'"):
        Trackio()
