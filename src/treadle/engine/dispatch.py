"""The one place where events are dispatched: who listens, in which order, and what becomes of their errors."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from threading import get_ident
from time import perf_counter
from typing import Any, NamedTuple, TypeVar, cast

from treadle.checkpoint.packing import pack_plain
from treadle.engine.apart import Apart, Gift, own
from treadle.engine.elsewhere import EVENTS_ELSEWHERE
from treadle.engine.events import EVENTS, Events, Hook, Record
from treadle.errors import UsageError, one_line
from treadle.terminal import say

T = TypeVar("T")

HEARD = ("scalars", "image", "text")
"""The kinds of records that a hook hears that names none."""
FAILURES_ALLOWED = 5
"""Failures after which an observer is switched off; after the n-th, it is left alone for 2**(n-1) seconds."""


class Handler:
    """One hook (or the trainer itself) as the dispatcher sees it: its time, its failures, whether it still listens."""

    __slots__ = ("failures", "name", "observer", "quiet_until", "seconds")

    def __init__(self, name: str, observer: bool) -> None:
        self.name = name
        self.observer = observer
        self.seconds = 0.0
        self.failures = 0
        self.quiet_until = 0.0

    @property
    def off(self) -> bool:
        """Whether an observer has failed so often that it is no longer called."""
        return self.failures >= FAILURES_ALLOWED


class Observer(NamedTuple):
    """What an observer does in an event: what it makes of the arguments, what it hears, whether it only hands on."""

    handler: Handler
    method: Callable[..., None]
    given: Callable[[Any], Any]
    hears: Collection[str] | None
    hands_over: bool


class Dispatcher:
    """Calls everybody who overrides an event: the owner's own method first, then the hooks by order.

    Who overrides what is found once, in `listen`: an event that nobody overrides costs one empty loop.

    Args:
        owner: the trainer, whose own methods count, and which hooks are given.
        note: told of an observer's failure, as `note(event, **fields)`.
        where: says where the run is, for the notes on errors.
    """

    def __init__(self, owner: Any, note: Callable[..., None], where: Callable[[], str]) -> None:
        self._owner, self._note, self._where = owner, note, where
        self._replaced: dict[str, Callable[..., Any]] = {}
        self._handlers: dict[int, Handler] = {}
        self._hooks: list[Hook] = []
        self._table: dict[str, list[tuple[Handler, Callable[..., None]]]] = {event: [] for event in EVENTS}
        self._own = Handler(type(owner).__name__, observer=False)
        self._all_observers = Handler("observers", observer=True)
        self.observing: tuple[Handler, int] | None = None
        """The observer that is being called, and in which thread."""
        _refuse_near_misses(type(owner), Events)

    def listen(self, hooks: Sequence[Hook]) -> None:
        """Let `hooks` listen, besides the owner; those that did keep their count of failures."""
        for hook in hooks:
            _refuse_near_misses(type(hook), Hook)
        self._hooks = list(hooks)
        known = self._handlers
        self._handlers = {
            id(hook): known.get(id(hook)) or Handler(type(hook).__name__, hook.observer) for hook in hooks
        }
        for event in self._table:
            # A new list: an event that is being fired goes on with those who listened when it began.
            row: list[tuple[Handler, Callable[..., None]]] = []
            observers: list[Observer] = []
            replaced = self._replaced.get(event)
            if replaced is not None:
                row.append((self._own, replaced))
            elif _overrides(self._owner, event, Events):
                row.append((self._own, getattr(self._owner, event)))
            for hook in sorted(hooks, key=lambda hook: hook.order):
                if _overrides(hook, event, Hook):
                    handler = self._handlers[id(hook)]
                    method = partial(getattr(hook, event), self._owner)
                    hears = (HEARD if hook.hears is None else hook.hears) if event == "on_log" else None
                    if hook.observer:
                        copies = hook.wants_batches or event not in ("pre_step", "post_step")
                        observers.append(Observer(handler, method, own if copies else _nothing, hears, hook.hands_over))
                        if len(observers) == 1:  # those that follow are called together with it
                            row.append((self._all_observers, partial(self._observe, event, observers)))
                    else:
                        observers = []
                        row.append((handler, method if hears is None else partial(_if_heard, hears, method)))
            self._table[event] = row

    def replace(self, event: str, function: Callable[..., Any] | None) -> None:
        """Let `function` stand for the owner's own method; None goes back to it."""
        self._replaced.pop(event, None)
        if function is not None:
            self._replaced[event] = function
        self.listen(self._hooks)

    @property
    def handlers(self) -> Iterable[Handler]:
        """The hooks, as they were given, with their time and failures."""
        return self._handlers.values()

    def listens(self, event: str) -> bool:
        """Whether anybody reacts to `event`."""
        return bool(self._table[event])

    def hears(self, kind: str) -> bool:
        """Whether some hook names `kind` among the records that it hears, and has not been switched off."""
        return any(hook.hears is not None and kind in hook.hears and not self._handlers[id(hook)].off
                   for hook in self._hooks)  # fmt: skip

    def fire(self, event: str, *args: Any) -> None:
        """Call the handlers of `event` in order; a critical one's error passes on, an observer's is contained."""
        row = self._table[event]
        if not row:
            return
        start = perf_counter()
        for handler, method in row:
            try:
                method(*args)
            except Exception as error:
                error.add_note(f"in {event} of {handler.name}, {self._where()}")
                raise
            end = perf_counter()
            handler.seconds += end - start
            start = end

    def gather_for_save(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Fire `on_save`: what critical handlers add to the state, and what observers do, which no digest counts."""
        critical: dict[str, Any] = {}
        observed: dict[str, Any] = {}
        for handler, method in self._table["on_save"]:
            if handler is not self._all_observers:
                method(critical)
                continue
            for observer in cast(partial[None], method).args[1]:
                gift = Gift()
                self._observe("on_save", [observer], gift)
                self._contain(observer.handler, "on_save", partial(_pack_into, observed, gift))
        return critical, observed

    def contain(self, hook: Hook, what: str, action: Callable[[], T]) -> T | None:
        """What `action` gives; None where the observer `hook` is switched off, or fails, which is counted."""
        result: list[T] = []
        handler = self._handlers[id(hook)]
        if not handler.off:
            self._contain(handler, what, lambda: result.append(action()))
        return result[0] if result else None

    def _observe(self, event: str, observers: Sequence[Observer], *args: Any) -> None:
        """Call observers that follow one another, each with arguments that are its own to change.

        Those that only hand them on share a copy.
        """
        streams = Apart()
        shared: list[Any] = []
        try:
            for handler, method, given, hears, hands_over in observers:
                if hears is not None and args[0].kind not in hears:
                    continue
                start = perf_counter()
                if handler.failures and event != "teardown" and (handler.off or start < handler.quiet_until):
                    continue
                if not hands_over or given is not own:
                    action = partial(_call, method, given, args)
                elif not shared:
                    action = partial(_share, method, shared, args)
                else:
                    action = partial(method, *shared)
                self._contain(handler, event, action, streams, settle=not hands_over)
                handler.seconds += perf_counter() - start
        finally:
            streams.leave()

    def _contain(
        self,
        handler: Handler,
        event: str,
        action: Callable[[], object],
        streams: Apart | None = None,
        *,
        settle: bool = True,
    ) -> None:
        """Let nothing that an observer raises or draws reach the run: count it, report it, wait a while.

        `streams` are left to others who observe the same, after whom it is settled at the latest; by default they are
        its own.
        """
        before, self.observing = self.observing, (handler, get_ident())
        used = streams or Apart()
        try:
            used.enter()
            try:
                action()
            finally:
                if streams is None:
                    used.leave()
                elif settle:
                    used.settle()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # sys.exit() in a logger's depths is no reason to end a run
            used.leave()  # who hears of it may be no observer
            handler.failures += 1
            handler.quiet_until = perf_counter() + 2.0 ** (handler.failures - 1)
            what = one_line(error)
            fate = "switched off" if handler.off else f"failure {handler.failures} of {FAILURES_ALLOWED}"
            say(f"treadle: {handler.name}.{event} failed ({what}); {fate}, the run goes on")
            self._note("observer failed", observer=handler.name, event_name=event, error=what)
        finally:
            self.observing = before

    def refuse_observers(self, what: str) -> None:
        """Raise UsageError where an observer is being called: the method `what` would change the run."""
        if self.observing is not None and self.observing[1] == get_ident():
            raise UsageError(
                f"{what}() was called by {self.observing[0].name}, an observer, and would change the run: make it a "
                "critical hook (observer = False)"
            )


def _if_heard(kinds: Collection[str], method: Callable[[Record], None], record: Record) -> None:
    """Leave a hook alone with the kinds of records that it has no use for."""
    if record.kind in kinds:
        method(record)


def _call(method: Callable[..., None], given: Callable[[Any], Any], args: tuple[Any, ...]) -> None:
    method(*map(given, args))


def _share(method: Callable[..., None], shared: list[Any], args: tuple[Any, ...]) -> None:
    shared += [own(argument) for argument in args]
    method(*shared)


def _nothing(argument: Any) -> None:
    """What an observer is given that has no use for batches."""


def _pack_into(target: dict[str, Any], gift: Gift) -> None:
    target.update(pack_plain(dict(gift), "on_save"))


def _overrides(listener: Any, event: str, base: type) -> bool:
    """Whether a trainer or hook reacts to an event: by a method of its class, or a function of its own."""
    own = getattr(listener, "__dict__", ())
    return event in own or getattr(type(listener), event) is not getattr(base, event)


def _refuse_near_misses(kind: type, base: type) -> None:
    """Raise UsageError for a method that looks like a misspelt event, or is one elsewhere: it would never be called.

    What a class of somebody else's has, such as another trainer's callback that is a base too, is that one's.
    """
    theirs = {name for cls in kind.__mro__ if not issubclass(cls, base) for name in vars(cls)}
    for name in sorted({name for cls in kind.__mro__ if cls not in base.__mro__ for name in vars(cls)} - theirs):
        if name.startswith(("pre_", "post_", "on_")) and name not in EVENTS:
            elsewhere = EVENTS_ELSEWHERE.get(name)
            near = [elsewhere] if elsewhere else difflib.get_close_matches(name, EVENTS, n=1, cutoff=0.85)
            if near:
                raise UsageError(f"{kind.__name__}.{name} is no event and is never called: did you mean {near[0]!r}?")
