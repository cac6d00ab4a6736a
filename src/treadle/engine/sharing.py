"""Which tensors share memory: a view changes with what it is a view of, after a restore as before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from treadle.checkpoint.plain import has_tensors, is_plain
from treadle.engine.parts import Parts, walk

Pair = tuple[str, str]
"""Dotted names of two tensors that share memory, in order."""


def tensors_of(parts: Parts) -> dict[str, Tensor]:
    """The tensors among the attributes and in the data there, and the parameters and buffers, by dotted name."""
    found: dict[str, Tensor] = {}
    for attribute, value in parts.attributes.items():
        if attribute not in parts.transient and is_plain(value) and has_tensors(value):
            found.update({name: item for name, item in walk(value, attribute) if isinstance(item, Tensor)})
    if found:  # without any there is nothing that could share the memory of a module
        for name, module in parts.modules.items():
            found.update({f"{name}.{inner}": p for inner, p in module.named_parameters()})
            found.update({f"{name}.{inner}": kept for inner, kept in module.named_buffers()})
        found.update(parts.parameters)
    return found


def pairs_in(tensors: Mapping[str, Tensor]) -> set[Pair]:
    """The pairs that share memory, by the range that each covers."""
    by_memory: dict[int, list[tuple[int, int, str]]] = {}
    for name, tensor in tensors.items():
        if tensor.layout == torch.strided and not torch.nn.parameter.is_lazy(tensor) and tensor.numel():
            start = int(tensor.storage_offset()) * tensor.element_size()
            steps = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
            end = start + (int(steps) + 1) * tensor.element_size()
            by_memory.setdefault(tensor.untyped_storage().data_ptr(), []).append((start, end, name))
    pairs: set[Pair] = set()
    for ranges in by_memory.values():
        ranges.sort()
        for index, (_, end, name) in enumerate(ranges):
            for start, _, other in ranges[index + 1 :]:
                if start >= end:
                    break
                pairs.add((min(name, other), max(name, other)))
    return pairs


def sharers(pairs: Iterable[Pair], tensors: Mapping[str, Tensor], parts: Parts) -> dict[str, Tensor]:
    """Of the tensors that share memory, those that are attributes themselves."""
    names = {name for pair in pairs for name in pair}
    return {name: tensors[name] for name in sorted(names) if name in parts.attributes}


def part(subject: Any, parts: Parts, pairs: set[Pair], objects: Mapping[str, Tensor]) -> None:
    """Let the attributes be `objects` again, and give memory of their own to those that share it in no pair of `pairs`.

    So what is written into one afterwards reaches the others, or does not, as it did then.
    """
    for name, tensor in objects.items():
        if isinstance(parts.attributes.get(name), Tensor) and parts.attributes[name] is not tensor:
            setattr(subject, name, tensor)
    here = tensors_of(parts)
    for first, second in sorted(pairs_in(here) - pairs):
        name = second if second in parts.attributes or first not in parts.attributes else first
        if here[first] is here[second] and name in parts.attributes:
            setattr(subject, name, here[name].detach().clone())
        elif not isinstance(here[name], torch.nn.Parameter):
            here[name].data = here[name].data.clone()
