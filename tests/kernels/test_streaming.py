"""Streamed copies against `copy_`: the same bytes, whatever the size, alignment, layout, dtype and thread count."""

from __future__ import annotations

import threading

import pytest
import torch

from treadle.kernels import streaming, threads


def noise(size: int) -> torch.Tensor:
    return torch.randint(0, 256, (size,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("extra", [0, 1, 63, 64, 65, 4097])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_byte_arrives_and_none_besides(extra: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "parts_for", lambda work: count)
    source = noise(streaming.LARGE + extra)
    memory = torch.full((len(source) + 64,), 7, dtype=torch.uint8)
    target = memory[: len(source)]
    assert streaming.can_stream(target)
    streaming.copy(target, source)
    assert torch.equal(target, source)
    assert (memory[len(source) :] == 7).all()


def test_what_is_large_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = []
    monkeypatch.setattr(threads, "launch", lambda kernel, parts, *arguments: launched.append(arguments[-1]))
    large = torch.zeros(streaming.LARGE // 4)
    streaming.copy(torch.zeros_like(large), large)
    streaming.copy(torch.zeros_like(large[:-1]), large[:-1])
    assert launched == [streaming.LARGE]


@pytest.mark.parametrize(
    "source",
    [
        noise(streaming.LARGE + 1)[1:],
        noise(streaming.LARGE * 2)[::2],
        noise(streaming.LARGE).view(torch.complex64).conj(),
        noise(streaming.LARGE).view(torch.bfloat16),
        torch.arange(2_000_000).reshape(1000, 2000).t(),
        torch.tensor(3),
        torch.empty(0),
    ],
    ids=["unaligned", "strided", "conjugate", "bfloat16", "transposed", "scalar", "empty"],
)
def test_other_layouts_and_dtypes(source: torch.Tensor) -> None:
    target = torch.zeros(source.shape, dtype=source.dtype)
    assert streaming.copy(target, source) is target
    assert torch.equal(
        target.view(torch.uint8) if target.dim() else target,
        source.resolve_conj().contiguous().view(torch.uint8) if target.dim() else source,
    )


def test_another_thread_sees_the_copy() -> None:
    source, target = noise(streaming.LARGE), torch.zeros(streaming.LARGE, dtype=torch.uint8)
    seen: list[bool] = []
    streaming.copy(target, source)
    reader = threading.Thread(target=lambda: seen.append(torch.equal(target, source)))
    reader.start()
    reader.join()
    assert seen == [True]
