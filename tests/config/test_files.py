"""YAML as data: what is read, what is refused, and that nothing in a file can run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from treadle.config.files import MISSING, differences, dumps, load, loads, override, parse_override
from treadle.errors import UsageError


def refused(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        loads(text, source="a.yaml")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("a.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("1E5", 1e5), ("-1.5e+10", -1.5e10), (".5", 0.5), ("1.", 1.0), (".inf", math.inf),
        ("1_000", 1000), ("0x1F", 31), ("-3", -3), ("010", "010"), ("no", "no"), ("on", "on"), ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"), ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("50 steps", "50 steps"), ("30%", "30%"), ("'1e-3'", "1e-3"), ("[1, 2.0]", [1, 2.0]), ("{b: 1}", {"b": 1}),
    ],
)  # fmt: skip
def test_plain_values(text: str, value: Any) -> None:
    read = loads(f"a: {text}", source="a.yaml")["a"]
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['touch {marker}']",
        "a: !!python/object/apply:pathlib.Path.touch [{marker}]",
        "a: !!python/object/new:os.system ['touch {marker}']",
        "a: !!python/name:os.system ''",
        "!!python/object/apply:os.system ['touch {marker}']",
        "? !!python/object/apply:os.system ['touch {marker}']\n: 1",
        "a: !!timestamp 2001-01-01",
        "a: !!set {{x}}",
        "a: !anything 1",
    ],
)
def test_no_tag_builds_an_object(text: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    assert "is not supported: files are plain data" in refused(text.format(marker=marker))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3", "a.yaml, line 3: 'a' is given twice"),
        ("c:\n  a: 1\n  a: 2", "a.yaml, line 3: 'a' is given twice"),
        ("a: &x [1]\nb: *x", "a.yaml, line 2: alias *x: aliases are not supported"),
        ("a: &x [*x]", "aliases are not supported"),
        ("- 1", "expected settings as 'key: value', found a list"),
        ("hello", "expected settings as 'key: value', found only 'hello'"),
        ("", "a.yaml is empty"),
        ("# a comment\n", "a.yaml is empty"),
        ("a: [1", "expected ',' or ']'"),
        ("a: 1\n b: 2", "a.yaml, line 2: mapping values are not allowed here"),
        ("a: 1\n---\nb: 2", "expected a single document"),
        ("a: \t1\n\tb: 2", "found character '\\t' that cannot start any token"),
        ("? [a]\n: 1", "a key must be text or a number"),
        ("a: !!int x", "a value does not fit its tag"),
        ("a: \0", "not readable as YAML"),
        ("[" * 5000, "nested too deeply"),
        ("a: " + "9" * 5000, "a value does not fit its tag"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text: str, expected: str) -> None:
    assert expected in refused(text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: 1")
    (tmp_path / "binary.yaml").write_bytes(b"\x89PNG\xff\xfe\x00")
    for path, expected in [
        (tmp_path / "confg.yaml", "no such file; did you mean 'config.yaml'?"),
        (tmp_path / "nowhere" / "a.yaml", "a.yaml: no such file"),
        (tmp_path, "is a directory: expected a YAML file; did you mean"),
        (tmp_path / "binary.yaml", "binary.yaml is not a YAML file: it is not UTF-8 text"),
        (tmp_path / "config.yaml" / "x.yaml", "cannot be read: Not a directory"),
    ]:
        with pytest.raises(UsageError) as caught:
            load(path)
        assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert load(tmp_path / "a.yaml") == {"a": 1}


def test_dumped_data_is_read_back() -> None:
    data = {"a": "no", "b": "1e-3", "c": [1, [2, 3]], "d": {"e": {}, "f": None}, "g": "a: b\nc", "h": 1e-5, "i": "é🧵"}
    assert loads(dumps(data), source="a.yaml") == data


def test_other_readers_of_yaml_find_the_same_text() -> None:
    data = {"a": "no", "b": "010", "c": "2024-01-01", "d": "1:30", "e": "~", "f": "1_0"}
    assert yaml.safe_load(dumps(data)) == data


def test_what_is_not_plain_data_is_not_written() -> None:
    with pytest.raises(yaml.YAMLError):
        dumps({"a": object()})


def test_equal_lists_are_written_out_each_time() -> None:
    shared = [1, 2]
    assert loads(dumps({"a": shared, "b": shared}), source="a.yaml") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max_steps=500", (("max_steps",), 500)),
        ("grid.levels=8", (("grid", "levels"), 8)),
        ("lr=1e-3", (("lr",), 1e-3)),
        ("log_every=50 steps", (("log_every",), "50 steps")),
        ("clip_norm=null", (("clip_norm",), None)),
        ("sizes=[1, 2]", (("sizes",), [1, 2])),
        ("text=a=b", (("text",), "a=b")),
    ],
)
def test_overrides_are_read_as_yaml(text: str, expected: Any) -> None:
    assert parse_override(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max_steps", "--set max_steps: expected KEY=VALUE"),
        ("=3", "--set =3: expected KEY=VALUE"),
        ("a..b=3", "--set a..b=3: expected KEY=VALUE"),
        ("a=", "--set a=: the value is missing (null means none)"),
        ("a=[1", "--set a=[1: expected ',' or ']'"),
        ("a=!!python/name:os.system ''", "is not supported: files are plain data"),
    ],
)
def test_bad_overrides_are_named(text: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_override(text)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_overrides_reach_into_groups_and_leave_the_original_alone() -> None:
    original = {"a": {"b": 1, "c": 2}, "d": None}
    assert override(original, ["a.b=3", "d.e=4", "a.b=5"]) == {"a": {"b": 5, "c": 2}, "d": {"e": 4}}
    assert original == {"a": {"b": 1, "c": 2}, "d": None}
    with pytest.raises(UsageError, match=r"--set a\.b\.x=1: a\.b is a single value, not a group"):
        override(original, ["a.b.x=1"])


def test_differences_name_the_dotted_keys() -> None:
    first = {"a": {"b": 1, "c": 2}, "d": True, "e": math.nan, "g": 1}
    second = {"a": {"b": 1, "c": 3}, "d": 1, "e": math.nan, "f": None, "g": 1.0}
    assert differences(first, second) == [("a.c", 2, 3), ("d", True, 1), ("f", MISSING, None)]
    assert differences(first, first) == []
    assert differences({"a": {}}, {"a": {"b": 1}}) == [("a.b", MISSING, 1)]
    assert differences({"a": {}}, {}) == [("a", {}, MISSING)]
