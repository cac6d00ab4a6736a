"""What the state of a run is made of: its sections, captured between two steps and restored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from treadle.checkpoint.evaluated import AVERAGES
from treadle.checkpoint.kinds import Kinds
from treadle.checkpoint.modules import ModuleMemory
from treadle.checkpoint.objects import Objects
from treadle.checkpoint.optimizers import Groups
from treadle.checkpoint.packing import pack_plain, tensor_paths, unpack
from treadle.checkpoint.plain import stateful
from treadle.checkpoint.state import Section, State, Value, capture, restore
from treadle.engine.dispatch import Dispatcher
from treadle.engine.edits import Edits, pack_history
from treadle.engine.events import Hook
from treadle.engine.late import Late
from treadle.engine.lifecycle import Lifecycle, Stage
from treadle.engine.parts import Parts, walk
from treadle.engine.progress import Progress
from treadle.engine.ranks import Ranks
from treadle.engine.subject import Subject
from treadle.engine.weights import averages_of
from treadle.errors import DataChanged, StateError
from treadle.terminal import say

RESTORED_FIRST = ("data", "late", "attributes", "hooks", "feeds")
"""Before all others: whether the data is right, and the parameters, whose shapes the rest follows."""


class RunState:
    """The complete state of a run, in named sections.

    Args:
        subject: of whose attributes plain data is set, and whose feeds are part of it.
        parts: the attributes.
        progress, lifecycle: the run's counters and stage.
        events: asks hooks and the owner what they add, and tells them what was restored.
        hooks: gives the hooks; those with state are part of it. What observers keep is not part of the digest.
        others: further sections by name, in the order in which they are written.
        edits: what a person has changed, as far as no other section has it.
        adopt: called when a restored state has made attributes other objects.
        ranks: what each of several processes has by itself.

    Attributes:
        late: what came after setup.
        other_world: how many processes the state was of that was restored last, where these are not as many.
        begun_with: the fingerprint of the weights that the run began with, where its settings name some.
    """

    def __init__(
        self,
        subject: Subject,
        parts: Parts,
        progress: Progress,
        lifecycle: Lifecycle,
        events: Dispatcher,
        hooks: Callable[[], list[Hook]],
        others: Mapping[str, Section],
        edits: Edits,
        adopt: Callable[[], None],
        ranks: Ranks,
    ) -> None:
        self._subject, self._parts, self._ranks = subject, parts, ranks
        self._lifecycle, self._events, self._hooks, self._edits = lifecycle, events, hooks, edits
        self.other_world: int | None = None
        self.begun_with: str | None = None
        self._user: dict[str, Any] = {}
        self._waiting: dict[str, Any] = {}
        """The state of hooks that are not here yet; they may still be added before the first step."""
        self.late = Late(subject, parts, hooks, adopt, edits.switches.owns)
        self._kinds = Kinds(subject, lambda: self.late.classes)
        self._memory, self._groups = ModuleMemory(), Groups(parts.named_tensors)
        began = Value(lambda: lifecycle.began, lambda saved: setattr(lifecycle, "began", saved))
        reason = Value(lambda: lifecycle.finish_reason, lambda saved: setattr(lifecycle, "finish_reason", saved))
        self._sections: dict[str, Section] = {
            "progress": progress,
            "began": began,
            "finish_reason": reason,
            **others,
            "attributes": Objects(
                "attribute", subject, self._attributes, self._is_observer, memory=self._memory, groups=self._groups
            ),
            "hooks": Objects("hook", subject, lambda: self._stateful_hooks(observers=False), self._may_differ),
            "feeds": Objects(
                "feed",
                subject,
                lambda: subject.feeds,
                remedy=": give the data that the run had (data=, validation_data=, test_data=)",
            ),
            "user": Value(lambda: self._user, lambda saved: setattr(self, "_user", saved)),
            "data": Value(self._fingerprints, self._check_data),
        }

    def set_up(self) -> None:
        """Take note of what setup has made: what comes later is part of the state as such."""
        self.late.set_up()
        self._look()

    def capture(self, *, ask: bool = True) -> State:
        """The state between two steps; tensors are references, not copies.

        Unless `ask`, nobody is asked for what `on_save` adds: the state is not one to go back to. Raises StateError
        naming an attribute that has state and cannot be saved.
        """
        self.settle_hooks()
        self._look()
        self._user, observers = self._events.gather_for_save() if ask else ({}, {})
        late = self.late.state_dict()
        # Only where there is something: states of version 0.1.0 have none.
        sections = self._sections | ({"late": Value(lambda: late, self.late.load_state_dict)} if late else {})
        if edits := self._edits.state_dict():
            sections["edits"] = Value(lambda: edits, self._edits.load_state_dict)
        if not self._ranks.differ:
            state = capture(sections, self._kinds)
        else:
            with self._ranks.taken_apart() as parts:
                sections["ranks"] = Value(lambda: parts, lambda saved: None)
                state = capture(sections, self._kinds)
            self._ranks.make_alike(state)
        state.frame = self.late.now()
        self._check_held(state)
        state.clock = {"seconds": self._lifecycle.seconds}
        if self._parts.emas:
            state.clock[AVERAGES] = averages_of(self._parts)
        kept = {
            name: saved for name, hook in self._stateful_hooks(observers=True).items() if (saved := self._kept(hook))
        }
        if self._edits.history:
            state.clock["edits"] = pack_history(self._edits.history)
        if kept or observers:
            state.clock["observers"] = {"hooks": kept, "user": observers}
        return state

    def restore(self, state: State) -> None:
        """Put a run, constructed as the saved one was, into `state`; parameters take the saved shapes.

        Raises StateError naming what the run has and the state has not, or the other way round.
        """
        self._edits.foresee(state.values.get("edits", {}))
        self._waiting = self._absent(state)
        names = [*RESTORED_FIRST, *(name for name in self._sections if name not in RESTORED_FIRST)]
        sections = self._sections | {"late": self.late, "edits": self._edits}
        self.late.frame = state.frame
        parts: dict[str, Any] = {}
        sections["ranks"] = Value(dict, parts.update)
        there = replace(state, values={"late": {}, "edits": {}, "ranks": {}} | state.values)
        restore({name: sections[name] for name in [*names, "edits", "ranks"]}, there, self._kinds)
        self.other_world = self._ranks.restore(parts)
        self._edits.remember(unpack(state.clock.get("edits", []), {}))
        self._lifecycle.seconds = state.clock["seconds"]
        observers = state.clock.get("observers", {})
        for name, hook in self._stateful_hooks(observers=True).items():
            if observers.get("hooks", {}).get(name) is not None:
                saved = unpack(observers["hooks"][name], {})
                self._events.contain(hook, "load_state_dict", partial(hook.load_state_dict, saved))
        self._events.fire("on_load", unpack(observers.get("user", {}), {}) | self._user)

    def show(self, state: State) -> None:
        """Put attributes and counters into `state`, to be looked at and not to be trained on.

        Optimizers, random streams, feeds and hooks stay as they are: what they would hold is as large again as the
        weights, or twice, and nobody sees it. Raises StateError as `restore` does.
        """
        left_out = set(self._parts.optimizers)
        names = ("progress", "metrics", "validation_metrics", "user")
        attributes: Mapping[str, Any] = state.values["attributes"]
        values = {"format": state.values["format"], "late": state.values.get("late", {})}
        values |= {"attributes": {name: value for name, value in attributes.items() if name not in left_out}}
        values |= {name: state.values[name] for name in names}
        section = Objects(
            "attribute",
            self._subject,
            lambda: {name: value for name, value in self._attributes().items() if name not in left_out},
            self._is_observer,
            memory=self._memory,
            groups=self._groups,
        )
        sections: dict[str, Section] = {"late": self.late, "attributes": section}
        sections |= {name: self._sections[name] for name in names}
        wanted = {path: state.tensors[path] for path in tensor_paths(values)}  # those of the optimizers are not copied
        restore(sections, State(values, wanted), self._kinds)
        self._lifecycle.seconds = state.clock["seconds"]
        self._subject.on_load(dict(self._user))

    def _look(self) -> None:
        """See the modules and optimizers there are; those that stand where others stood after setup are taken for them.

        So the state is the same as that of a run in which they are those of setup: one that is resumed.
        """
        self._parts.refresh()
        for name, module in self._parts.modules.items():
            first = self.late.first(name)
            self._memory.look(module, first if isinstance(first, torch.nn.Module) else None)
        for name, optimizer in self._parts.optimizers.items():
            first = self.late.first(name)
            self._groups.look(optimizer, first if isinstance(first, torch.optim.Optimizer) else None)

    def settle_hooks(self) -> None:
        """Give the hooks that were added since the state was restored what they had then.

        Raises StateError for one that is still not here.
        """
        waiting, self._waiting = self._waiting, {}
        here = self._stateful_hooks(observers=False) if waiting else {}
        for name, saved in waiting.items():
            if name not in here:
                raise StateError(
                    f"the checkpoint has hook {name!r}, the trainer has not: give it again, with hooks=[...] or "
                    "add_hook, before the first step (a hook that may be left out declares optional_state)"
                )
            here[name].load_state_dict(saved)

    def _absent(self, state: State) -> dict[str, Any]:
        """What `state` has of critical hooks that a trainer has not which has just been made: it may yet get them."""
        if self._lifecycle.stage is not Stage.NEW:
            return {}
        here = self._stateful_hooks(observers=False)
        saved: Mapping[str, Any] = state.values.get("hooks", {})
        for name in here:
            if name not in saved and not _optional_hook(name):
                say(f"treadle: the run has had no hook {name.partition('.')[0]} so far: its state begins here")
        absent = {name: values for name, values in saved.items() if name not in here and not _optional_hook(name)}
        tensors = state.copy().tensors if absent else {}
        return {name: unpack(values, tensors, self._kinds) for name, values in absent.items()}

    def _may_differ(self, name: str) -> bool:
        """Whether a hook may be new, or gone, in a state: where it says so, or the trainer has just been made."""
        return self._lifecycle.stage is Stage.NEW or _optional_hook(name)

    def _check_held(self, state: State) -> None:
        """Raise StateError for a parameter that an optimizer updates and that is not in `state`."""
        held = {id(p) for p in self._parts.named_tensors().values()}
        saved: set[int] | None = None
        for name, optimizer in self._parts.optimizers.items():
            for p in (p for group in optimizer.param_groups for p in group["params"]):
                if id(p) in held:
                    continue
                saved = saved or {tensor.data_ptr() for tensor in state.tensors.values()}
                if p.data_ptr() not in saved and name.partition(".")[0] not in self._parts.transient:
                    raise StateError(
                        f"{name!r} updates a parameter of shape {tuple(p.shape)} that no attribute of the trainer "
                        "holds: make it one"
                    )

    def _attributes(self) -> dict[str, Any]:
        """The attributes with state, but for observers: theirs is no part of the run's."""
        found = stateful(self._parts.attributes, self._parts.transient, walk)
        return {
            name: value
            for name, value in found.items()
            if not (isinstance(value, Hook) and value.observer) and not self.late.holds(name, value)
        }

    def _is_observer(self, name: str) -> bool:
        """Whether the attribute `name` is an observer here; version 0.1.0 saved its state as that of any other."""
        hook = self._parts.hooks.get(name)
        return hook is not None and hook.observer

    def _stateful_hooks(self, *, observers: bool) -> dict[str, Any]:
        """Hooks with state, named by class and number."""
        counts: dict[str, int] = {}
        found: dict[str, Any] = {}
        attributes = self._parts.hooks.values() if observers else ()  # the others' state is that of attributes
        for hook in {id(hook): hook for hook in [*self._hooks(), *attributes]}.values():
            name = type(hook).__name__
            counts[name] = counts.get(name, 0) + 1
            if hasattr(hook, "state_dict") and hook.observer == observers:
                found[f"{name}.{counts[name]}"] = hook
        return found

    def _kept(self, hook: Any) -> Any:
        """What an observer keeps, as plain data; None where it fails, or keeps what no file can hold."""
        return self._events.contain(hook, "state_dict", lambda: pack_plain(hook.state_dict(), "state"))

    def _fingerprints(self) -> dict[str, str]:
        found = {name: feed.recorded_fingerprint() for name, feed in self._subject.feeds.items()}
        return found if self.begun_with is None else found | {"init": self.begun_with}

    def _check_data(self, saved: Mapping[str, str]) -> None:
        self.begun_with = saved.get("init")
        for name, feed in self._subject.feeds.items():
            if saved.get(name) is not None and not feed.accept_fingerprint(saved[name]):
                raise DataChanged(f"the data of {name!r} is not what it was: restore the files, or start a new run")


def _optional_hook(name: str) -> bool:
    """Whether a hook of that name may be new, or gone, in a run that is resumed: its class says so."""
    kind = name.partition(".")[0]
    waiting: list[type[Hook]] = [Hook]
    while waiting:
        found = waiting.pop()
        if found.__name__ == kind and found.optional_state:
            return True
        waiting += found.__subclasses__()
    return False
