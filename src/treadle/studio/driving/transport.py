"""The transport: what a client asks of the run, as the commands that the run obeys between two steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from treadle.engine import commands
from treadle.engine.command import Command
from treadle.engine.events import Record
from treadle.engine.until import Until
from treadle.studio import protocol
from treadle.studio.topics import Client, Handler, Live, Topic

MOST_RULES = 100
MISSED = 2
"""Times that a split is logged without a metric, until who waits for that is told: some are measured now and then."""


@dataclass(eq=False)
class Rule:
    """A rule on a metric of which nothing has been seen since it was asked for.

    Attributes:
        split, name: the metric, as it is logged.
        missed: how often the split was logged without it.
    """

    until: Until
    split: str
    name: str
    missed: int = 0


class Transport(Topic):
    """Pause, play, steps, saving, validating, stopping, going back and further.

    Who waits for a metric that never comes is told so, once, with those that there are.
    """

    features = ("train",)

    def __init__(self, live: Live) -> None:
        self._live = live
        self._rules: list[Rule] = []

    def handlers(self) -> Mapping[type[protocol.Request], Handler]:
        """Each is a command of the engine; the answer comes once it is obeyed."""
        makers: dict[type[protocol.Request], Callable[[Any], Command]] = {
            protocol.Pause: lambda asked: commands.Pause(),
            protocol.Play: lambda asked: commands.Continue(),
            protocol.Advance: lambda asked: commands.Advance(asked.steps, asked.unit),
            protocol.RunUntil: lambda asked: commands.RunUntil(self._until(asked)),
            protocol.Save: lambda asked: commands.Save(),
            protocol.Validate: lambda asked: commands.Validate(),
            protocol.Stop: lambda asked: commands.Stop("stopped in the studio"),
            protocol.Rewind: lambda asked: commands.Rewind(asked.step, asked.keep),
            protocol.Note: lambda asked: commands.Note(asked.step, asked.text),
            protocol.Break: lambda asked: commands.Break(self._until(asked), asked.act),
            protocol.Unbreak: lambda asked: commands.Unbreak(asked.number),
            protocol.Extend: lambda asked: commands.Extend(asked.max_epochs, asked.max_steps),
        }
        return {request: self._obeying(make) for request, make in makers.items()}

    def _obeying(self, make: Callable[[Any], Command]) -> Handler:
        def obey(request: protocol.Request, client: Client) -> object:
            return self._live.commands.put(make(request), client.label)

        return obey

    def _until(self, asked: protocol.RunUntil | protocol.Break) -> Until:
        until = Until.parse(asked.until)
        if until.kind in ("rule", "stall"):
            split, _, name = until.name.partition("/")
            rule = Rule(until, split, name) if split in ("train", "validation") else Rule(until, "train", until.name)
            if rule.split == "validation" and self._live.subject.validation_feed is None:
                self._tell(rule)
            else:
                self._rules = [*self._rules[1 - MOST_RULES :], rule]
        return until

    def on_log(self, record: Record) -> None:
        """See whether the metrics come that are waited for."""
        for rule in [each for each in self._rules if record.kind == "scalars" and each.split == record.name]:
            rule.missed += 1
            if rule.name in record.value:
                self._rules.remove(rule)
            elif rule.missed == MISSED:
                self._rules.remove(rule)
                self._tell(rule)

    def _tell(self, rule: Rule) -> None:
        loop = self._live.loop
        there = [f"train/{name}" for name in loop.logbook.metrics]
        there += [f"validation/{name}" for name in loop.validation_metrics]
        known = f"; there are {', '.join(there)}" if there else ""
        text = f"{rule.until!s} is waited for, and no {rule.split}/{rule.name} has come so far{known}"
        self._live.publisher.publish(protocol.Notice(text=text, level="warning"))
