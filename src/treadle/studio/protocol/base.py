"""What all messages have in common, and the ranges that fields keep to."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

VERSION = 1
"""Of the protocol. A client of another version is told so and sent away."""

Id = Annotated[int, Meta(ge=0, le=2**53 - 1)]
"""Chosen by the client, rising; numbers that JavaScript can count to."""
Step = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Name = Annotated[str, Meta(max_length=200)]
"""Of a metric, view, run or setting: compared with those there are, never used as a path or an attribute."""
Text = Annotated[str, Meta(max_length=2000)]
Pixels = Annotated[int, Meta(ge=1, le=4096)]


class Message(Struct, forbid_unknown_fields=True, tag_field="type", tag=lambda name: name.lower(), kw_only=True):
    """Anything that is said in either direction; `type` is the class's name in lower case."""


class Hello(Message, kw_only=True):
    """The first thing that a client says."""

    version: int
    client: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    """Random, kept by the browser's tab over reloads: requests are counted by it."""
    seen: Id = 0
    """The sequence number of the last event it has, to be told what it missed."""
    label: Annotated[str, Meta(max_length=60)] = ""
    """How others see it: "Firefox on tower"."""


class Request(Message, kw_only=True):
    """Something asked for; see the module's text. `control` says which requests need the control of the run."""

    id: Id


class Command(Request, kw_only=True):
    """A request that changes the run, or what it does next: only the client that holds control may send it."""
