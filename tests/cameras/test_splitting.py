from __future__ import annotations

import pytest

from treadle.cameras.splitting import Split, split_every, split_lists, split_names
from treadle.errors import UsageError

NAMES = ["left/a.png", "left/b.png", "right/a.png", "right/c.jpg"]


@pytest.fixture
def lists(tmp_path):
    def make(**contents):
        for kind, content in contents.items():
            (tmp_path / f"{kind}.txt").write_text(content)
        return {kind: tmp_path / f"{kind}.txt" for kind in contents}

    return make


def test_every_so_many_th_is_held_out():
    assert split_every(9, 4) == Split([1, 2, 3, 5, 6, 7], [0, 4, 8], [0, 4, 8])
    assert split_every(3, 0) == Split([0, 1, 2], [], [])
    for every in (1, -2):
        with pytest.raises(UsageError, match=f"every is {every}: expected 0, to hold out nothing, or 2 and more"):
            split_every(9, every)


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        ({"test": "b.png\n"}, Split([0, 2, 3], [1], [1])),
        ({"train": "left/a\n# no\n\n  c \n"}, Split([0, 3], [1, 2], [1, 2])),
        ({"train": "b", "test": "c.jpg"}, Split([1], [3], [3])),
        ({"train": "b", "val": "c.jpg", "test": "right/a.png"}, Split([1], [3], [2])),
        ({"train": "b", "validation": "c.jpg"}, Split([1], [3], [3])),
        ({"train": "./left/b.png\nleft/b.png"}, Split([1], [0, 2, 3], [0, 2, 3])),
    ],
)
def test_lists_name_views(lists, contents, expected):
    assert split_lists(NAMES, lists(**contents)) == expected


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ({"test": "a.png"}, r"test\.txt names 'a\.png', which may be left/a\.png or right/a\.png: write it in full"),
        (
            {"test": "left/d.png"},
            r"names 'left/d\.png', which is none of 4 views; did you mean 'left/\w\.png'",
        ),
        ({"test": "zzzzzzzz"}, r"names 'zzzzzzzz', which is none of 4 views, such as left/a\.png"),
        ({"test": "b", "train": "b\nc"}, r"train\.txt and another list both name left/b\.png"),
        ({"test": "left/a\nb\nright/a\nc"}, r"test\.txt: no view is left to train on"),
        ({"test": "# nothing\n"}, r"test\.txt is empty"),
        ({"tset": "b"}, r"lists has 'tset'; did you mean 'test'\?"),
        ({}, r"lists is empty: expected files for train, test or both"),
    ],
)
def test_lists_that_cannot_be_used_say_why(lists, contents, said):
    with pytest.raises(UsageError, match=said):
        split_lists(NAMES, lists(**contents))


def test_a_name_in_full_is_clear_even_where_it_ends_another_one():
    assert split_names(["a.png", "left/a.png"], {"test": ["a.png"]}, {"test": "list"}) == Split([1], [0], [0])


def test_a_list_that_is_no_text_or_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"none\.txt cannot be read"):
        split_lists(NAMES, {"test": tmp_path / "none.txt"})
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"list\.txt is no text"):
        split_lists(NAMES, {"test": str(tmp_path / "list.txt")})
