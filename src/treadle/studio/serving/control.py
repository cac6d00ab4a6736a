"""Who holds the run's control: one client at a time, seen by all."""

from __future__ import annotations

from collections.abc import Callable

from treadle.errors import UsageError
from treadle.studio.protocol import Event, Notice
from treadle.studio.serving.session import Session


class Control:
    """The run's control. The first client that commands takes it; another one has to say that it takes over.

    Args:
        publish: tells every client.
    """

    def __init__(self, publish: Callable[[Event], None]) -> None:
        self._publish = publish
        self._holder: Session | None = None
        self.changes = 0
        """How often it has changed hands."""

    @property
    def label(self) -> str:
        """Of the client that holds it; empty where nobody does, or whoever did is gone: the next to command has it."""
        return self._holder.label if self._holder is not None and self._holder.connected else ""

    def demand(self, session: Session) -> None:
        """A client commands. Raises UsageError where it may only view, or another that is there holds control."""
        holder = self._holder
        if session.role != "control":
            raise UsageError("this address may only view: open the one that gives control")
        if holder is None or not holder.connected:
            self._give(session)
        elif holder is not session:
            raise UsageError(f"{holder.label} holds control: take it over first")

    def take(self, session: Session) -> None:
        """A client takes it from whoever has it. Raises UsageError where it may only view."""
        if session.role != "control":
            raise UsageError("this address may only view: open the one that gives control")
        before = self._holder
        if before is not session:
            self._give(session)
            if before is not None:
                self._publish(Notice(text=f"{session.label} has taken control from {before.label}"))

    def release(self, session: Session) -> None:
        """A client gives it back. Raises UsageError where it has it not."""
        if self._holder is not session:
            raise UsageError("control is not yours to give back")
        self.forget(session)
        self._publish(Notice(text=f"{session.label} has given control back"))

    def forget(self, session: Session) -> None:
        """A client is gone for good."""
        if self._holder is session:
            self._holder = None
            self.changes += 1
            session.in_control = False

    def _give(self, session: Session) -> None:
        if self._holder is not None:
            self._holder.in_control = False
        self._holder = session
        self.changes += 1
        session.in_control = True
