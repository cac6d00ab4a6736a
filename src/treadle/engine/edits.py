"""Edits: what a person changes in a run that goes on, as one transaction, with what it was before.

    edits.propose([Change("lr_multiplier", "optimizer", 0.5), Change("setting", "clip_norm", 1.0)])
    edits.make([...])

Nothing of it knows the loop; whoever calls it does so between two steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, cast, get_args

from treadle.checkpoint.packing import pack_plain
from treadle.config.fields import plain
from treadle.config.settings import amend, choices_of, live_settings, rules_of, with_setting
from treadle.engine.limits import check_schedules
from treadle.engine.minimize import Minimizer
from treadle.engine.objective import Objective
from treadle.engine.parts import Parts
from treadle.engine.progress import Progress
from treadle.engine.schedule import Every, Span
from treadle.engine.settings import TrainerConfig
from treadle.engine.switches import Switches
from treadle.errors import StateError, UsageError, nearest, one_line

What = Literal["lr_multiplier", "loss_weight", "frozen", "setting", "limit"]
LIMITS = ("max_steps", "max_epochs")
LARGEST_MULTIPLIER = 1000.0
REMEMBERED = 100
"""Edits that can be undone, one after the other."""


@dataclass(frozen=True)
class Change:
    """One thing to set.

    what            target                              value
    lr_multiplier   an optimizer's attribute name       0 to 1000
    loss_weight     a loss term                         0 or more; None: the term's own weight or schedule
    frozen          what can be frozen, see `editable`  True or False
    setting         a live setting of the config        as the config takes it
    limit           max_steps or max_epochs             a whole number, or None for no such limit
    """

    what: What
    target: str
    value: Any

    def __post_init__(self) -> None:
        if self.what not in get_args(What):
            raise UsageError(f"no edit changes {self.what!r}{nearest(str(self.what), get_args(What))}")
        if not isinstance(self.target, str) or not self.target:
            name = "the term" if self.what == "loss_weight" else "the target"
            raise UsageError(f"{self.what.replace('_', ' ')}: {name} is {self.target!r}, expected its name")
        match self.what:
            case "lr_multiplier":
                _check_range("learning-rate multiplier", self.value, LARGEST_MULTIPLIER)
            case "loss_weight" if self.value is not None:
                _check_range(f"weight of loss term {self.target!r}", self.value, math.inf)
            case "frozen" if not isinstance(self.value, bool):
                raise UsageError(f"frozen {self.target!r} is {self.value!r}: expected true or false")
            case "limit":
                whole = isinstance(self.value, int) and not isinstance(self.value, bool) and self.value >= 1
                if not (whole or self.value is None):
                    raise UsageError(f"{self.target} is {self.value!r}: expected a whole number of at least 1, or null")


class Edits:
    """The edits of a run: checks, makes and remembers them. Those in force are a section of its state.

    Args:
        parts: whose objectives have the loss weights.
        config: the run's settings, which are amended.
        progress: the run's counters and limits.
        minimizer: has the multipliers, and what is frozen.
        heed: called when settings are others than before.
        switches: the hooks that settings switch on and off.
    """

    def __init__(
        self,
        parts: Parts,
        config: TrainerConfig,
        progress: Progress,
        minimizer: Minimizer,
        heed: Callable[[], None],
        switches: Switches,
    ) -> None:
        self._parts, self._config, self._progress = parts, config, progress
        self._minimizer, self._heed = minimizer, heed
        self.switches = switches
        self._planned: dict[str, Any] = {}
        """What edited settings and limits are in the config that the run was made with."""
        self.history: list[dict[str, Any]] = []
        """The edits that `undo` can take back, oldest first: step, and changes as `propose` gives them."""

    # Before anything is made --------------------------------------------------------------------------------------

    def propose(self, changes: Sequence[Change]) -> list[dict[str, Any]]:
        """What these changes would do together: what, target, label, before and after of each, as plain data.

        Nothing is made. Raises UsageError for the first that cannot be. May be asked for by any thread.
        """
        made, _, _ = self._checked(changes)
        return [_difference(each["what"], each["target"], each["before"], each["after"]) for each in made]

    def editable(self) -> list[dict[str, Any]]:
        """What can be edited now: what, target, label, value, low, high, unit and kind.

        The kind is "number", "text", "switch" or "choice", which has `choices`. None for `low` or `high` is no bound,
        an empty `unit` is none. `before` is there where it has been edited: what it was planned to be.
        """
        found = [
            _entry("lr_multiplier", name, self._minimizer.multiplier(name), 0.0, LARGEST_MULTIPLIER, "x")
            for name in self._minimizer.updaters
        ]
        for term, objective in self._terms().items():
            found.append(_entry("loss_weight", term, _weight(objective, term), 0.0, None, ""))
        for name in LIMITS:
            value = getattr(self._progress, name)
            low = self._progress.step if name == "max_steps" else self._progress.epoch
            found.append(_entry("limit", name, value, low + 1, None, name.partition("_")[2]))
        settings, kind = _settings(self._config), cast(Any, type(self._config))
        for name in settings:
            rule = rules_of(kind)[name]
            lacking = settings[name] is None and name not in self.switches.settings
            if name not in LIMITS and not (rule.live == "unless null" and lacking):
                least, most = (
                    a if a is not None else b for a, b in ((rule.least, rule.above), (rule.most, rule.below))
                )
                for target, value in _entries(name, settings[name]):
                    number = least is not None or most is not None
                    entry = _entry("setting", target, value, least, most, "")
                    entry |= {"kind": "number"} if value is None and number else {}
                    choices = choices_of(kind, name)
                    found.append(entry | ({"kind": "choice", "choices": choices} if choices else {}))
        closures = {name for name, updater in self._minimizer.updaters.items() if updater.needs_closure}
        if not closures:
            frozen = self._minimizer.frozen.names
            for name in self._minimizer.frozen.choices():
                found.append(_entry("frozen", name, name in frozen, None, None, ""))
        edited = {(each["what"], each["target"]): each["before"] for each in self.in_force()}
        for entry in found:
            key = entry["what"], entry["target"]
            if key in edited:
                entry["before"] = edited[key]
        return found

    def in_force(self) -> list[dict[str, Any]]:
        """The edits in force: what, target, label, before (as planned) and after, as plain data."""
        found = []
        for name in self._minimizer.updaters:
            if (value := self._minimizer.multiplier(name)) != 1.0:
                found.append(_difference("lr_multiplier", name, 1.0, value))
        for term, objective in self._terms().items():
            if term in objective.set_weights:
                found.append(_difference("loss_weight", term, None, objective.set_weights[term]))
        found += [_difference("frozen", name, False, True) for name in self._minimizer.frozen.names]
        now = _settings(self._config)
        for name, planned in self._planned.items():
            found.append(_difference("limit" if name in LIMITS else "setting", name, planned, now[name]))
        return found

    def planned(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """`settings`, plain data of the config, as they were before any edit: what config.yaml has."""
        return {name: self._planned.get(name, value) for name, value in settings.items()}

    # Making them --------------------------------------------------------------------------------------------------

    def make(self, changes: Sequence[Change]) -> list[dict[str, Any]]:
        """Make all of these changes, or none; returns what, target, before, after and, to take it back, undo of each.

        Raises UsageError where one cannot be.
        """
        made, config, progress = self._checked(changes)
        try:
            self._apply(changes, config, progress)
        except Exception:  # whoever heeds a setting refuses it
            back = _back(made)
            _, config, progress = self._checked(back)
            self._apply(back, config, progress)
            raise
        self.history.append({"step": self._progress.step, "changes": made})
        del self.history[:-REMEMBERED]
        return made

    def last(self) -> list[Change]:
        """The changes that take back the last edit that has not been taken back. Raises UsageError without any."""
        if not self.history:
            raise UsageError("there is nothing to undo: no edit is in force")
        return _back(self.history[-1]["changes"])

    def undo(self) -> list[dict[str, Any]]:
        """Take the last edit back; returns what that changes."""
        made = self.make(self.last())
        del self.history[-2:]
        return made

    def forget(self, names: Iterable[str]) -> None:
        """These settings are planned to be what they are by now."""
        self._planned = {name: value for name, value in self._planned.items() if name not in set(names)}

    def give_way(self, names: Iterable[str]) -> None:
        """Somebody has given other settings than the run had: those are in force, and no edit of them any more."""
        ours = [name for name in names if name in self._planned]
        if ours:
            config = replace(self._config, **{name: self._planned[name] for name in ours})
            limits = {name: self._planned[name] for name in ours if name in LIMITS}
            self._take_over(config, replace(self._progress, **limits))

    # The state ----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What is edited and no other section has: settings, limits, what is frozen; empty where nothing is."""
        now = _settings(self._config)
        settings = {name: now[name] for name in self._planned}
        state = {"settings": settings, "frozen": self._minimizer.frozen.names}
        return {name: value for name, value in state.items() if value}

    def foresee(self, state: Mapping[str, Any]) -> None:
        """Let those hooks be there that the settings of a state ask for, into which what they held is put afterwards.

        Raises StateError where they cannot be.
        """
        config, _ = self._as_in(state)
        try:
            self.switches.check(self._config, config)
            self.switches.follow(config)
        except UsageError as error:
            raise StateError(f"the run was edited with what is impossible here: {error}") from error

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave; what it does not have is as it was planned."""
        self._minimizer.frozen.freeze(state.get("frozen", ()))
        config, settings = self._as_in(state)
        if settings:
            self._take_over(config, replace(self._progress, **{n: v for n, v in settings.items() if n in LIMITS}))

    def _as_in(self, state: Mapping[str, Any]) -> tuple[TrainerConfig, dict[str, Any]]:
        """The settings with what a state has of them, and those of them that are edited, in it or now."""
        settings = self._planned | dict(state.get("settings", {}))
        known = _settings(self._config)
        for name in settings:
            if name not in known:
                raise StateError(
                    f"the run was edited with {name!r}, which is no live setting here{nearest(name, known)}"
                )
        try:
            return replace(self._config, **settings) if settings else self._config, settings
        except UsageError as error:
            raise StateError(f"the run was edited with what is impossible here: {error}") from error

    def remember(self, history: Any) -> None:
        """Have these edits, which a state has kept, to be taken back. Raises StateError where they are none."""
        try:
            for entry in history:
                for each in entry["changes"]:
                    Change(each["what"], each["target"], each["undo"]), each["before"], each["after"]
            self.history = list(history)
        except (TypeError, KeyError, UsageError) as error:
            raise StateError(f"the edits that can be undone are damaged ({one_line(error)})") from error

    # How ----------------------------------------------------------------------------------------------------------

    def _checked(self, changes: Sequence[Change]) -> tuple[list[dict[str, Any]], TrainerConfig, Progress]:
        """What the changes come to, and the settings and counters with them."""
        if not changes:
            raise UsageError("the edit changes nothing: give it a change")
        config, progress, made = self._config, replace(self._progress), []
        seen: set[tuple[str, str]] = set()
        for change in changes:
            what, target = change.what, change.target
            if (what, target) in seen:
                raise UsageError(f"the edit changes {target!r} ({what}) twice: say once what it is to be")
            seen.add((what, target))
            before: Any
            undo: Any
            match what:
                case "lr_multiplier":
                    before = undo = self._minimizer.multiplier(target)
                case "loss_weight":
                    objective = self._objective(target)
                    before, undo = _weight(objective, target), objective.set_weights.get(target)
                case "frozen":
                    self._minimizer.frozen.check(target)
                    before = undo = target in self._minimizer.frozen.names
                case "setting":
                    if target.partition(".")[0] in LIMITS:
                        raise UsageError(f"{target} is a limit of the run: change it as such (what: limit)")
                    before = _plain(config, target)
                    undo = _plain(self._config, target.partition(".")[0])
                    config = with_setting(config, target, change.value, self.switches.settings)
                case "limit":
                    if target not in LIMITS:
                        raise UsageError(f"{target!r} is no limit of the run{nearest(target, LIMITS)}")
                    before = undo = getattr(progress, target)
                    setattr(progress, target, change.value)
                    config = replace(config, **{target: change.value})
            after = _plain(config, target) if what == "setting" else change.value
            made.append({"what": what, "target": target, "before": before, "after": after, "undo": undo})
        if any(change.what == "limit" for change in changes):
            self._check_limits(config, progress)
        self._check_together(config, progress)
        return made, config, progress

    def _check_limits(self, config: TrainerConfig, progress: Progress) -> None:
        """Raise UsageError for limits with which the run would be at its end, or would never come to one."""
        if progress.at_limit:
            ends = " and ".join(f"{name}={getattr(progress, name)}" for name in LIMITS if getattr(progress, name))
            raise UsageError(
                f"after {progress.epoch} epochs and {progress.step} steps the run would be at its end with {ends}: "
                "give more, or stop it"
            )
        if progress.max_steps is None and progress.max_epochs is None and config.max_time is None:
            raise UsageError("nothing would say when the run ends: leave it max_epochs or max_steps")

    def _check_together(self, config: TrainerConfig, progress: Progress) -> None:
        """Raise UsageError where settings, right by themselves, cannot be those of this run."""
        check_schedules(config, progress)
        self._minimizer.check_names(config)
        self.switches.check(self._config, config)
        kind = cast(Any, type(config))
        for name in live_settings(kind):
            parse, value = rules_of(kind)[name].parse, getattr(config, name)
            if value is not None and value != getattr(self._config, name):
                try:
                    if parse is Every:
                        Every(value).due_after_step(progress)
                    elif isinstance(span := parse(value) if parse is not None else None, Span):
                        span.reached(progress)
                except UsageError as error:
                    raise UsageError(f"{name}: {error}") from None

    def _apply(self, changes: Sequence[Change], config: TrainerConfig, progress: Progress) -> None:
        for change in changes:
            match change.what:
                case "lr_multiplier":
                    self._minimizer.set_multiplier(change.target, change.value)
                case "loss_weight":
                    for objective in self._parts.objectives.values():
                        if change.target in objective.terms:
                            objective.set_weight(change.target, change.value)
                case "frozen":
                    names = set(self._minimizer.frozen.names) - {change.target}
                    self._minimizer.frozen.freeze(names | ({change.target} if change.value else set()))
        self._take_over(config, progress)

    def _take_over(self, config: TrainerConfig, progress: Progress) -> None:
        """Let settings and limits be those of `config` and `progress`, and tell whoever heeds them."""
        before, after = _settings(self._config), _settings(config)
        changed = [name for name in before if before[name] != after[name]]
        for name in changed:
            self._planned.setdefault(name, before[name])
            amend(self._config, name, getattr(config, name))
        for name in LIMITS:
            setattr(self._progress, name, getattr(progress, name))
        self._planned = {name: value for name, value in self._planned.items() if after[name] != value}
        if changed:
            self._heed()

    def _terms(self) -> dict[str, Objective]:
        """The loss terms by name, each with an objective that has it."""
        found: dict[str, Objective] = {}
        for objective in self._parts.objectives.values():
            for term in objective.terms:
                found.setdefault(term, objective)
        return found

    def _objective(self, term: str) -> Objective:
        known = self._terms()
        if term not in known:
            raise UsageError(f"no loss term {term!r}{nearest(term, known)}")
        return known[term]


def flat(change: Mapping[str, Any]) -> dict[str, Any]:
    """A change as the journal has it: what, its target under its usual name, before and after."""
    key = {"lr_multiplier": "optimizer", "loss_weight": "term"}.get(change["what"], "target")
    return {"what": change["what"], key: change["target"], "before": change["before"], "after": change["after"]}


def changes_of(entry: Mapping[str, Any]) -> list[Change] | None:
    """The changes that a journal entry of an edit tells of; None for an edit of another kind."""
    changes = []
    for each in entry["changes"] if entry.get("what") == "several" else [entry]:
        if each.get("what") not in get_args(What):
            return None
        key = {"lr_multiplier": "optimizer", "loss_weight": "term"}.get(each["what"], "target")
        changes.append(Change(each["what"], each[key], each["after"]))
    return changes


def pack_history(history: Sequence[Mapping[str, Any]]) -> Any:
    """The edits that can be undone, as a checkpoint keeps them beside its digest."""
    return pack_plain(list(history), "edits")


def _settings(config: TrainerConfig) -> dict[str, Any]:
    """The limits and the live settings as plain data, in the order of the fields."""
    live = live_settings(type(config))
    found = {each.name: getattr(config, each.name) for each in fields(config) if each.name in live | {*LIMITS}}
    return {name: str(v) if isinstance(v, Every | Span) else plain(v, name) for name, v in found.items()}


def _back(made: Sequence[Mapping[str, Any]]) -> list[Change]:
    """The changes that take back what was made: a setting as a whole, also where only an entry of it was changed."""
    undo: dict[tuple[Any, str], Any] = {}
    for each in made:
        target = each["target"].partition(".")[0] if each["what"] == "setting" else each["target"]
        undo.setdefault((each["what"], target), each["undo"])
    return [Change(what, target, value) for (what, target), value in undo.items()]


def _plain(config: TrainerConfig, name: str) -> Any:
    """The value of a setting, or of an entry of one, as plain data."""
    value: Any = _settings(config)
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _entries(name: str, value: Any) -> list[tuple[str, Any]]:
    """A setting by its name, one that is a mapping by those of its entries."""
    if isinstance(value, Mapping):
        return [pair for key, item in value.items() for pair in _entries(f"{name}.{key}", item)]
    return [] if isinstance(value, list) else [(name, value)]


def _weight(objective: Objective, term: str) -> float | None:
    try:
        return objective.weight(term)
    except UsageError:  # a schedule that cannot be told yet
        return None


def _label(what: str, target: str) -> str:
    """What people call it."""
    match what:
        case "lr_multiplier":
            return f"learning rate of {target}"
        case "loss_weight":
            return f"weight of {target}"
        case "frozen":
            return f"{target} frozen"
    return target.replace("_", " ")


def _entry(what: str, target: str, value: Any, low: Any, high: Any, unit: str) -> dict[str, Any]:
    kind = "switch" if isinstance(value, bool) else "text" if isinstance(value, str) or value is None else "number"
    if what in ("limit", "loss_weight"):
        kind = "number"
    texts = {"label": _label(what, target), "value": value, "low": low, "high": high, "unit": unit, "kind": kind}
    return {"what": what, "target": target, **texts}


def _difference(what: str, target: str, before: Any, after: Any) -> dict[str, Any]:
    return {"what": what, "target": target, "label": _label(what, target), "before": before, "after": after}


def _check_range(what: str, value: Any, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"{what} is {value!r}: expected a finite number")
    if not 0 <= value <= most:
        raise UsageError(f"{what} is {value}: expected a value between 0 and {most:g}")
