"""Edits: proposed, made, taken back; and what is in force, which is told as the run has it, not as it was asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from treadle.engine.edit_commands import Edit, Undo
from treadle.engine.edits import Change, Edits
from treadle.studio import protocol
from treadle.studio.topics import Client, Handler, Live, Topic

CHANGES_WHAT_IS_IN_FORCE = frozenset({"start", "resume", "edit", "extend", "rewind", "rollback"})
"""Events of the journal after which other edits may be in force, or something else can be edited."""


class Editing(Topic):
    """Answers `Propose`, `Apply` and `Undo`, and tells `InForce`.

    Args:
        live: the run.
        refuses: says why no edit of a kind can be made; empty where one can.
    """

    features = ("edit",)

    def __init__(self, live: Live, refuses: Callable[[str], str] = lambda what: "") -> None:
        self._live, self._refuses = live, refuses
        self._edits: Edits = live.loop.edits
        self._asking = False
        self._in_force, self._editable = self._read()

    def handlers(self) -> Mapping[type[protocol.Request], Handler]:
        """Edits are made between steps, and so is what is read to propose them."""
        return {protocol.Propose: self._propose, protocol.Apply: self._apply, protocol.Undo: self._undo}

    def welcome(self) -> Mapping[str, list[Any]]:
        """What can be edited."""
        return {"editable": self._editable}

    def greeting(self, client: Client) -> Sequence[protocol.Event]:
        """What is in force."""
        return [protocol.InForce(edits=self._in_force, editable=self._editable)]

    def on_journal(self, entry: Mapping[str, Any]) -> None:
        """Tell what is in force, where that may have changed."""
        if entry.get("event") in CHANGES_WHAT_IS_IN_FORCE and not self._asking:
            self._asking = True
            self._live.commands.call(self._read).add_done_callback(self._told)

    def _propose(self, asked: protocol.Propose, client: Client) -> Future[Any]:
        changes = _changes(asked)
        return self._live.commands.call(lambda: self._edits.propose(changes))

    def _apply(self, asked: protocol.Apply, client: Client) -> Future[Any]:
        return self._live.commands.put(Edit(_changes(asked)), client.label)

    def _undo(self, asked: protocol.Undo, client: Client) -> Future[Any]:
        return self._live.commands.put(Undo(), client.label)

    def _read(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        self._asking = False  # what changes from here on is asked for anew
        editable = self._edits.editable()
        for entry in editable:
            if why := self._refuses(entry["what"]):
                entry["refused"] = why
        return self._edits.in_force(), editable

    def _told(self, done: Future[Any]) -> None:
        self._asking = False
        if not done.cancelled() and done.exception() is None:  # else the run has ended, and nothing changes any more
            self._in_force, self._editable = done.result()
            told = protocol.InForce(edits=self._in_force, editable=self._editable)
            self._live.publisher.publish_latest(told)


def _changes(asked: protocol.Propose | protocol.Apply) -> list[Change]:
    """The changes as the engine has them. Raises UsageError for a value out of its range."""
    return [Change(change.what, change.target, change.value) for change in asked.changes]
