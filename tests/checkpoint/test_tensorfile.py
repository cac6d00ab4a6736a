"""The bytes of a safetensors file, as the library that defines the format reads them back."""

from __future__ import annotations

import hashlib
import random

import pytest
import torch
from safetensors.torch import load

from treadle import StateError
from treadle.checkpoint.tensorfile import PIECE, hash_tensors, pieces, raw_bytes

DTYPES = [
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint16, torch.uint32, torch.uint64, torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64),
]


def content(tensors):
    return b"".join(bytes(piece) for piece in pieces(tensors))


def some(dtype, *shape):
    """Random bits: every value of the dtype may come, NaN and infinities too."""
    count = torch.Size(shape).numel()
    bits = torch.randint(0, 2 if dtype == torch.bool else 256, (count * dtype.itemsize,), dtype=torch.uint8)
    return bits.view(dtype).reshape(shape)


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and bytes(raw_bytes(a)) == bytes(raw_bytes(b))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_comes_back_bit_for_bit(dtype):
    whole = some(dtype, 6, 4)
    tensors = {
        "matrix": whole,
        "scalar": some(dtype),
        "empty": some(dtype, 0),
        "no rows": some(dtype, 0, 3),
        "transposed": whole.t(),
        "every other": whole[::2, 1:],
        "expanded": some(dtype, 1, 3).expand(5, 3),
        "permuted": some(dtype, 2, 3, 4).permute(2, 0, 1),
        "offset": some(dtype, 9)[1:],
    }
    read = load(content(tensors))
    assert set(read) == set(tensors)
    for name, tensor in tensors.items():
        assert same_bits(read[name], tensor.contiguous()), name


def test_all_dtypes_in_one_file():
    tensors = {str(dtype): some(dtype, 3) for dtype in DTYPES}
    read = load(content(tensors))
    assert all(same_bits(read[name], tensor) for name, tensor in tensors.items())


def test_the_same_tensors_give_the_same_bytes_in_any_order_of_the_dict():
    names = [f"{kind}/{index}" for kind in ("model", "optimizer") for index in range(8)]
    tensors = {name: some(random.Random(name).choice(DTYPES), 3, 2) for name in names}
    expected = content(tensors)
    for seed in range(5):
        shuffled = list(tensors.items())
        random.Random(seed).shuffle(shuffled)
        assert content(dict(shuffled)) == expected


def test_the_layout_in_memory_does_not_show():
    matrix = torch.arange(12.0).reshape(3, 4)
    assert content({"a": matrix.t()}) == content({"a": matrix.t().contiguous()})


@pytest.mark.parametrize("change", [lambda t: t + 0.0, lambda t: -t, lambda t: t.half(), lambda t: t.reshape(2, 2)])
def test_what_differs_hashes_differently(change):
    tensor = torch.tensor([-0.0, 1.0, 2.0, 3.0])
    assert hash_tensors({"a": tensor}) != hash_tensors({"a": change(tensor)})
    assert hash_tensors({"a": tensor}) != hash_tensors({"b": tensor})


def test_complex_views_that_are_conjugated_or_negated_lazily_are_what_they_say():
    number = torch.tensor([1 + 2j, 3 - 4j])
    tensors = {"conjugate": number.conj(), "imaginary": number.conj().imag}
    read = load(content(tensors))
    assert torch.equal(read["conjugate"], torch.tensor([1 - 2j, 3 + 4j]))
    assert read["imaginary"].tolist() == [-2, 4]


def test_no_tensors_make_a_file_too():
    assert load(content({})) == {}


def test_names_may_be_any_text():
    tensors = {"a/0/weight": torch.ones(1), 'quote " and ä \n': torch.zeros(2), "": torch.ones(3)}
    assert set(load(content(tensors))) == set(tensors)


def test_large_tensors_come_in_pieces_and_the_hash_is_the_file_s():
    tensors = {"large": some(torch.float32, PIECE // 4 + 5), "small": some(torch.int8, 3)}
    found = list(pieces(tensors))
    assert max(map(len, found)) == PIECE
    assert hashlib.sha256(b"".join(bytes(piece) for piece in found)).hexdigest() == hash_tensors(tensors)
    assert same_bits(load(content(tensors))["large"], tensors["large"])


def test_a_tensor_is_not_copied():
    tensor = torch.zeros(4)
    view = raw_bytes(tensor)
    tensor[0] = 1
    assert bytes(view[:4]) == b"\x00\x00\x80\x3f"


def test_a_dtype_that_the_format_has_not_is_refused_by_name():
    with pytest.raises(StateError, match=r"^wave has dtype torch.complex128, which a checkpoint cannot hold"):
        list(pieces({"fine": torch.ones(1), "wave": torch.ones(1, dtype=torch.complex128)}))
