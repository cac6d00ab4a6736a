"""Named loss terms with weights, weight schedules, tags and history.

One call turns raw terms into a weighted sum. The weight that is logged is the weight that was applied; means are kept
on the device, and nothing waits for it until the log interval.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, is_grad_enabled

from treadle.engine.curves import Curve
from treadle.engine.means import Means, over
from treadle.engine.progress import Progress
from treadle.engine.terms import Spec, Term, check_weight, named_spec, terms_of
from treadle.errors import StateError, UsageError, nearest
from treadle.parallel import ALONE, World


class Entry(NamedTuple):
    """One line of a term's history: the mean raw value up to `step`, and the weight last applied."""

    step: int
    mean: float
    weight: float


class Losses(Mapping[str, Tensor]):
    """What a call of an Objective gives: raw values by term name (detached scalars), and their weighted sum.

    Attributes:
        total: the sum of weight times raw value, differentiable. Terms of weight 0 are not part of its graph.
        weights: the weights that were applied, by term name.
    """

    __slots__ = ("_tags", "_values", "total", "weights")

    def __init__(
        self, values: dict[str, Tensor], weights: dict[str, float], tags: Mapping[str, tuple[str, ...]], total: Tensor
    ) -> None:
        self._values = values
        self._tags = tags
        self.weights = weights
        self.total = total

    def __getitem__(self, name: str) -> Tensor:
        return self._values[name].detach()  # when it is asked for, which in most steps is never

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Losses({', '.join(self._values)})"

    def subset(self, tags: str | Iterable[str]) -> Losses:
        """Return only the terms that have one of the tags, with a total of their own.

        To be removed: call the objective once for each total that is needed, with the terms that belong to it.

        Raises:
            UsageError: none of the terms at hand has such a tag.
        """
        warnings.warn(
            "Losses.subset will be removed: call the objective once for each total, with the terms that belong to it",
            FutureWarning,
            stacklevel=2,
        )
        wanted = {tags} if isinstance(tags, str) else set(tags)
        values = {name: value for name, value in self._values.items() if wanted.intersection(self._tags[name])}
        if not values:
            known = {tag for name in self._values for tag in self._tags[name]}
            raise UsageError(f"no loss term of this call has the tag {sorted(wanted)}{nearest(min(wanted), known)}")
        weights = {name: self.weights[name] for name in values}
        parts = [value * weights[name] for name, value in values.items() if weights[name]]
        total = sum(parts[1:], start=parts[0]) if parts else _zero(values)
        return Losses(values, weights, self._tags, total)


class Objective:
    """Named, weighted, scheduled loss terms.

    Called with raw values or with arguments for a term's function, it gives the weighted sum to minimize. As an
    attribute of a trainer it is bound to the run's counters, logged at the log interval, and saved with the run. Calls
    where gradients are off (validation) are computed but not recorded.

    Example:
        self.objective = Objective()
        self.objective.add("l1", weight=100.0, tags=("generator",))
        self.objective.add("gan", adversarial_loss, weight="linear 0 to 1 over 10%", tags=("generator",))
        ...
        losses = self.objective(l1=(fake - real).abs().mean(), gan=(logits,))
        self.minimize(losses.total, self.generator_optimizer)
    """

    def __init__(self, terms: Iterable[Term] = ()) -> None:
        self.history: dict[str, list[Entry]] = {}
        self._terms: dict[str, Term] = {}
        self._weights: dict[str, float | Curve] = {}  # what applies now: a number where it is constant
        self._live: dict[str, float] = {}  # weights a person set in the running program
        self._tags: dict[str, tuple[str, ...]] = {}
        self._last: dict[str, float] = {}
        self._means: dict[tuple[str, ...], Means] = {}
        """Raw values since the last flush, by the names of the terms that were given together."""
        self.call_weight = 1.0
        """What a call counts for in what is logged: of several processes, each one's share of the batch."""
        self._progress: Progress | None = None
        for term in terms:
            self._add(term)

    @classmethod
    def from_spec(
        cls, spec: str | Spec, *subspecs: str, weights: Mapping[str, float | str | Curve] | None = None
    ) -> Objective:
        """Build an objective from a spec: the terms of the named sub-specs together, or of its first sub-spec.

        Args:
            spec: sub-spec name to its terms. (A name that a pack knows a spec by works for this release.)
            subspecs: which of its parts.
            weights: other weights, by term name.

        Raises:
            UsageError: an unknown sub-spec or term, or a term that two sub-specs have.
        """
        terms = list(terms_of(named_spec(spec) if isinstance(spec, str) else spec, subspecs))
        objective = cls(terms)  # refuses a name that comes twice
        other = {name: replace(objective._known(name), weight=weight) for name, weight in (weights or {}).items()}
        return cls(other.get(term.name, term) for term in terms)

    def add(
        self,
        name: str,
        function: Callable[..., Tensor] | None = None,
        *,
        weight: float | str | Curve = 1.0,
        tags: tuple[str, ...] = (),
    ) -> None:
        """Add a term; see `Term` for the arguments.

        Raises:
            UsageError: the objective has a term of that name, or an argument is not valid.
        """
        self._add(Term(name, function, weight, tags))

    @property
    def terms(self) -> Mapping[str, Term]:
        """The terms by name, as they were added."""
        return dict(self._terms)

    def bind(self, progress: Progress) -> None:
        """Count weight schedules from `progress` (the trainer does this)."""
        self._progress = progress

    def set_weight(self, name: str, value: float | None) -> None:
        """Replace a term's weight, or its schedule, by a number from the next call on; saved with the run.

        None goes back to the term's own.

        Raises:
            UsageError: an unknown term, or a value that is negative or not finite.
        """
        term = self._known(name)
        if value is None:
            self._live.pop(name, None)
            self._weights[name] = term.constant_or_curve()
            return
        check_weight(name, value)
        self._weights[name] = self._live[name] = float(value)

    @property
    def set_weights(self) -> Mapping[str, float]:
        """The weights that `set_weight` has put in the place of the terms' own, by term name."""
        return dict(self._live)

    def weight(self, name: str) -> float:
        """Return the weight that a call would apply now.

        Raises:
            UsageError: an unknown term, or a schedule that cannot be evaluated yet.
        """
        self._known(name)
        weight = self._weights[name]
        return weight if isinstance(weight, float) else self._scheduled(name, weight)

    def __call__(self, /, **given: Tensor | tuple[Any, ...]) -> Losses:
        """Weigh and sum the terms given; the others do not take part.

        Args:
            given: for each term its raw value (a scalar tensor), or a tuple of arguments for its function.

        Raises:
            UsageError: an unknown term, a value that is not a scalar tensor, or arguments for a term without function.
        """
        values: dict[str, Any] = given  # it is this call's own, and becomes the result
        weights: dict[str, float] = {}
        weight_of = self._weights.get
        total: Tensor | None = None
        for name, value in values.items():
            weight = weight_of(name)
            if type(weight) is not float:  # a schedule, or an unknown name
                weight = self.weight(name)
            if not isinstance(value, Tensor) and isinstance(value, tuple):
                value = values[name] = self._compute(name, value, weight)
            if not isinstance(value, Tensor) or value.dim():
                raise UsageError(_not_scalar(name, value))
            weights[name] = weight
            if weight:
                # Multiplying by one changes no bit, so it is left out.
                part = value if weight == 1.0 else value * weight
                total = part if total is None else total + part
            else:
                values[name] = value.detach()  # its graph is nobody's: not kept for as long as the result is
        if total is None:
            total = _zero(values)
        if is_grad_enabled():
            names = tuple(values)
            means = self._means.get(names)
            if means is None:
                means = self._means[names] = Means()
            means.add(values, self.call_weight)
            self._last.update(weights)
        return Losses(values, weights, self._tags, total)

    def flush(self, progress: Progress, world: World = ALONE) -> dict[str, float]:
        """Close the log interval: append to `history`, and return what to log, over all processes of `world`.

        Returns:
            For each term given since the last flush "name", the mean of its raw values over the calls, and
            "name.weight", the weight last applied. This is where the device is waited for.
        """
        together = Means()
        for names in sorted(self._means):  # sorted, so that a resumed run adds in the same order
            together.merge(self._means[names])
        self._means.clear()
        means = over(world, together).result()
        logged: dict[str, float] = {}
        for name in self._terms:
            if name in means:
                if name not in self._last:  # only others have met it so far
                    self._last[name] = self.weight(name)
                entry = Entry(progress.step, means[name], self._last[name])
                self.history.setdefault(name, []).append(entry)
                logged[name] = entry.mean
                logged[f"{name}.weight"] = entry.weight
        return logged

    def exchange(self, means: dict[tuple[str, ...], Means]) -> dict[tuple[str, ...], Means]:
        """Let `means` be the running sums from now on; returns those before."""
        before, self._means = self._means, means
        return before

    def take_running(self) -> dict[str, Any]:
        """The running sums as plain data, which then are none: each of several processes has sums of its own."""
        taken = {",".join(names): self._means[names].state_dict() for names in sorted(self._means)}
        self._means = {}
        return taken

    def add_running(self, sums: Mapping[str, Any]) -> None:
        """Add to the running sums what `take_running` gave."""
        for key, state in sums.items():
            part = Means()
            part.load_state_dict(state)
            self._means.setdefault(tuple(key.split(",")), Means()).merge(part)

    def state_dict(self) -> dict[str, Any]:
        """History, weights set by hand, and the running sums: plain data, and a tensor for each set of terms."""
        running = [(",".join(names), *_totals(means)) for names, means in self._means.items()]
        return {
            "terms": list(self._terms),
            "history": {name: [list(entry) for entry in entries] for name, entries in self.history.items()},
            "weights": dict(self._live),
            "last": dict(self._last),
            "sums": {
                "sums": {key: torch.tensor(sums, dtype=torch.float64) for key, sums, _ in running},
                "counts": {key: count for key, _, count in running},
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave, exactly.

        Raises:
            StateError: the state belongs to other terms; nothing is changed then.
        """
        saved = list(state["terms"])
        if sorted(saved) != sorted(self._terms):
            odd = sorted(set(saved).symmetric_difference(self._terms))
            raise StateError(f"objective: the state was saved with other terms (differing: {', '.join(odd)})")
        self.history = {name: [Entry(*entry) for entry in entries] for name, entries in state["history"].items()}
        self._weights = {name: term.constant_or_curve() for name, term in self._terms.items()}
        self._live = {name: float(value) for name, value in state["weights"].items()}
        self._weights.update(self._live)
        self._last = dict(state["last"])
        self._means = {}
        for key, sums in state["sums"]["sums"].items():
            names, count = tuple(key.split(",")), float(state["sums"]["counts"][key])
            self._means[names] = means = Means()
            means.load_state_dict({name: [total, count] for name, total in zip(names, sums.tolist(), strict=True)})

    def _add(self, term: Term) -> None:
        if term.name in self._terms:
            raise UsageError(f"the objective has a term {term.name!r} already; names must differ")
        self._terms[term.name] = term
        self._tags[term.name] = term.tags
        self._weights[term.name] = term.constant_or_curve()

    def _known(self, name: str) -> Term:
        if name not in self._terms:
            raise UsageError(f"the objective has no term {name!r}{nearest(name, self._terms)}")
        return self._terms[name]

    def _scheduled(self, name: str, curve: Curve) -> float:
        if self._progress is None:
            raise UsageError(
                f"loss term {name!r} has a schedule; call objective.bind(progress) first, or use a trainer"
            )
        weight = float(curve(self._progress))
        check_weight(name, weight)
        return weight

    def _compute(self, name: str, arguments: tuple[Any, ...], weight: float) -> Tensor:
        function = self._terms[name].function
        if function is None:
            raise UsageError(f"loss term {name!r} has no function; give its value, or add the term with one")
        if weight:
            return function(*arguments)
        with torch.no_grad():  # reported, but nothing to differentiate
            return function(*arguments)


def _zero(values: Mapping[str, Tensor]) -> Tensor:
    """The sum of terms that all have the weight 0."""
    for value in values.values():
        return value.new_zeros(())
    raise UsageError("an objective was called without any term; give at least one")


def _totals(means: Means) -> tuple[list[float], float]:
    """The sums of terms that were always given together, in their order, and how often they were."""
    entries = list(means.state_dict().values())
    count = entries[0][1]
    return [total for total, _ in entries], int(count) if count == int(count) else count


def _not_scalar(name: str, value: object) -> str:
    if isinstance(value, Tensor):
        return f"loss term {name!r} has shape {tuple(value.shape)}: a term is one number; reduce it, e.g. with .mean()"
    return f"loss term {name!r} is a {type(value).__name__}: give a scalar tensor, or a tuple of function arguments"
