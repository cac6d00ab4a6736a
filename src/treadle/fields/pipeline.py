"""A field and a tracer as one: what is trained, saved and rendered."""

from __future__ import annotations

from typing import Any

from torch import nn

from treadle.fields.field import Field
from treadle.fields.rays import Rays
from treadle.fields.tracer import Traced, Tracer


class Pipeline(nn.Module):
    """A field and how it is seen; any field under any tracer that finds the channels it needs."""

    def __init__(self, field: Field, tracer: Tracer) -> None:
        super().__init__()
        self.field, self.tracer = field, tracer

    def forward(self, rays: Rays, *arguments: Any, **options: Any) -> Traced:
        """What is seen along `rays`; arguments are those of `Tracer.forward`."""
        traced: Traced = self.tracer(self.field, rays, *arguments, **options)
        return traced
