from __future__ import annotations

import hashlib
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from treadle.engine.rows import RowEdit
from treadle.errors import UsageError
from treadle.fields.grids.baked import BakedCodebookGrid, read_compact, write_compact
from treadle.fields.grids.codebook import CodebookGrid

CELLS = torch.randint(0, 16, (60, 3), generator=torch.Generator().manual_seed(3))
POINTS = torch.rand(500, 3, generator=torch.Generator().manual_seed(4)) * 2.1 - 1.05


def trained(bits=3, cells=CELLS, levels=3, base=2, features=2):
    torch.manual_seed(bits)
    return CodebookGrid(cells, levels, features, base, bits)


@pytest.mark.parametrize("bits", [1, 3, 4, 8])
def test_its_features_are_those_of_the_choices_bit_for_bit(bits):
    grid = trained(bits)
    baked = grid.baked()
    assert torch.equal(baked(POINTS), grid(POINTS)) and torch.equal(baked(POINTS, 1), grid(POINTS, 1))
    assert (baked.width, baked.levels, baked.dimensions) == (grid.width, grid.levels, grid.dimensions)
    assert not list(baked.parameters()) and f"bits={bits}" in repr(baked)


def test_its_bytes_are_those_that_are_stored():
    grid = trained(3)
    baked, index = grid.baked(), grid.index
    inner = index.first_cell[2]
    assert baked.bytes == inner + -(-index.rows * 3 // 8) + 3 * 8 * 2 * 4
    assert baked.bytes < 0.05 * (grid.logits.numel() + grid.dictionary.numel()) * 4
    assert sum(buffer.numel() * buffer.element_size() for buffer in baked.buffers()) == baked.bytes


def test_after_pruning_and_in_one_level():
    grid = trained()
    grid.prune(grid.centres()[:, 0] > 0, RowEdit)
    assert torch.equal(grid.baked()(POINTS), grid(POINTS))
    flat = CodebookGrid(None, 1, 2, 2, 2)
    assert torch.equal(flat.baked()(POINTS), flat(POINTS)) and len(flat.baked().tree) == 0


def test_a_file_gives_back_the_grid_and_what_belongs_to_it(tmp_path):
    path, grid = tmp_path / "field.safetensors", trained()
    decoder = {"decoder/0": torch.randn(4, 6)}
    size = write_compact(path, grid.baked(), decoder, {"hidden": "4"})
    found = read_compact(path)
    assert torch.equal(found.grid(POINTS), grid(POINTS))
    assert torch.equal(found.tensors["decoder/0"], decoder["decoder/0"]) and found.about == {"hidden": "4"}
    assert size == path.stat().st_size < grid.baked().bytes + 4 * 24 + 800
    again = tmp_path / "again.safetensors"
    write_compact(again, found.grid, found.tensors, found.about)
    assert again.read_bytes() == path.read_bytes()


def test_the_file_is_what_is_documented(tmp_path):
    path, grid = tmp_path / "field.safetensors", trained(bits=3)
    write_compact(path, grid.baked())
    tensors = load_file(path)
    bits = "".join(f"{byte:08b}"[::-1] for byte in tensors["indices"].tolist())
    numbers = [int(bits[3 * k : 3 * k + 3][::-1], 2) for k in range(grid.index.rows)]
    assert numbers == grid.logits.argmax(1).tolist()
    index = grid.index
    assert len(tensors["tree"]) == index.first_cell[-2]
    for byte, children in zip(tensors["tree"].tolist(), index.records[:, :8].tolist(), strict=False):
        assert byte == sum(1 << k for k, child in enumerate(children) if child >= 0)


def test_a_state_of_other_cells_is_taken_over():
    small, large = trained().baked(), trained(cells=CELLS[:20]).baked()
    large.load_state_dict(small.state_dict())
    assert torch.equal(large(POINTS), small(POINTS))


def test_other_dtypes_follow():
    grid = trained()
    baked = grid.baked().double()
    torch.testing.assert_close(baked(POINTS.double()).float(), grid(POINTS))


def test_names_that_are_taken_are_refused(tmp_path):
    for tensors, about, name in (({"tree": torch.zeros(1)}, {}, "tree"), ({}, {"bits": "3"}, "bits")):
        with pytest.raises(UsageError, match=f"'{name}' is what the grid's own is called"):
            write_compact(tmp_path / "x", trained().baked(), tensors, about)


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_a_damaged_file_is_refused_by_name(tmp_path_factory, place, bit, cut):
    path = tmp_path_factory.mktemp("damaged") / "field.safetensors"
    write_compact(path, trained().baked(), {"decoder": torch.ones(3)})
    content = bytearray(path.read_bytes())
    at = int(place * len(content))
    if cut:
        content = content[:at]
    else:
        content[at] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"field\.safetensors"):
        read_compact(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "is not a compact field"),
        ({"version": "2"}, "has version 2"),
        ({"sha256": None}, "is not a compact field"),
        ({"base": "1"}, "its content is not what was written"),
        ({"bits": "4", "sha256": "anew"}, "8 entries for 4 bits"),
        ({"base": "one", "sha256": "anew"}, "is damaged: invalid literal"),
        ({"base": "3", "sha256": "anew"}, "is damaged: a tree of"),
        ({"base": "99", "sha256": "anew"}, "base is 99"),
    ],
)
def test_metadata_that_does_not_fit_is_refused_by_name(tmp_path, change, message):
    path = tmp_path / "field.safetensors"
    write_compact(path, trained().baked())
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    changed = header["__metadata__"] | change
    sha = changed.pop("sha256")
    if sha == "anew":
        sha = hashlib.sha256(file_of(header, changed) + content[end:]).hexdigest()
    path.write_bytes(file_of(header, changed if sha is None else {**changed, "sha256": sha}) + content[end:])
    with pytest.raises(UsageError, match=message) as error:
        read_compact(path)
    assert str(path) in str(error.value)


def file_of(header, metadata):
    text = json.dumps({**header, "__metadata__": metadata}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def test_other_files_are_refused_by_name(tmp_path):
    path = tmp_path / "other.safetensors"
    for content in (b"", b"no such thing", bytes(4000)):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"other\.safetensors is damaged, or not a safetensors file"):
            read_compact(path)
    save_file({"tree": torch.zeros(1)}, path)
    with pytest.raises(UsageError, match=r"other\.safetensors is not a compact field"):
        read_compact(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_compact(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("tree", torch.zeros(64, dtype=torch.uint8), "0 of the finest level"),
        ("tree", torch.full((3,), 255, dtype=torch.uint8), "ends before its cells do"),
        ("tree", torch.zeros(64), "not bytes"),
        ("indices", torch.zeros(5, dtype=torch.uint8), "5 bytes of indices"),
        ("dictionary", torch.full((3, 8, 2), torch.nan), "with NaN in it"),
        ("dictionary", torch.zeros(8, 2), "a dictionary of shape"),
    ],
)
def test_buffers_that_do_not_fit_are_named(name, value, message):
    baked = trained().baked()
    own = {key: getattr(baked, key) for key in ("tree", "indices", "dictionary")}
    with pytest.raises(UsageError, match=message):
        BakedCodebookGrid(**own | {name: value}, base=2, bits=3)
