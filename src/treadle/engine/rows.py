"""Row edits: adding, removing and replacing rows of parameters, and of everything that follows them, as a transaction.

A cloud of points, Gaussians or grid cells lives in several tensors with one row for each. To edit it means to edit each
parameter, its moments in every optimizer, its average and its gradient, all alike. `RowEdit` stages such edits and
applies all of them or none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from treadle.engine.row_commit import exchange, moments_of
from treadle.engine.row_layout import Layout, Moves, NewRows
from treadle.errors import StateError, UsageError, nearest

Rows = Mapping[Any, Tensor] | Sequence[Tensor]
Index = Tensor | Sequence[int] | Sequence[bool]


class Averages(Protocol):
    """What keeps averages of parameters, such as `treadle.engine.ema.EMA`."""

    def shadow_of(self, parameter: Tensor, /) -> Tensor | None:
        """Return the average of a tensor (itself, not a copy), or None where it keeps none."""


class RowEdit:
    """A transaction over the rows of tensors that share their first dimension.

    Operations are staged in order: indices count the rows as the operations before them have left them. `commit()`, or
    leaving a `with` block without an error, applies everything; until then, and whenever anything disagrees, nothing is
    changed. Each tensor stays the same object, so the trainer, the module and the optimizers keep their references.
    What follows a tensor: its state in every optimizer and group (whatever has a row for each of its rows; scalars such
    as "step" stay), its averages, and its gradient, which is cleared. Rows that stay keep every bit.

    A graph made before the commit is of no use after it: `backward` through it to an edited tensor raises StateError.

    Args:
        tensors: parameters (trainable or frozen) and plain per-row tensors, by name, or in a sequence.
        optimizers: where their moments are.
        emas: where their averages are.

    Raises:
        UsageError: the tensors do not share their first dimension, or one cannot be edited.

    Example:
        with RowEdit({"xy": xy, "rgb": rgb}, [optimizer]) as edit:
            edit.keep(opacity > 0.005)
            edit.append({"xy": children, "rgb": rgb[parents]})  # moments start at zero
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor] | Sequence[Tensor],
        optimizers: Sequence[torch.optim.Optimizer] = (),
        emas: Sequence[Averages] = (),
    ) -> None:
        named = tensors if isinstance(tensors, Mapping) else {str(i): tensor for i, tensor in enumerate(tensors)}
        self._tensors = dict(named)
        _check_tensors(self._tensors)
        self._optimizers = tuple(optimizers)
        self._emas = tuple(emas)
        self._shapes = {name: tensor.shape for name, tensor in self._tensors.items()}
        first = next(iter(self._tensors.values()))
        self._unchanged = Layout.unchanged(len(first), first.device)
        self._layouts = dict.fromkeys(self._tensors, self._unchanged)
        self._new: dict[str, list[NewRows]] = {name: [] for name in self._tensors}
        self._next = len(first)  # the number of the next new row
        self._rows = len(first)
        self._closed = False

    @property
    def rows(self) -> int:
        """How many rows there are with everything staged so far."""
        return self._rows

    def keep(self, rows: Index) -> None:
        """Keep the rows of a boolean mask, or of distinct indices in the order given; the others go.

        Raises:
            UsageError: a mask of another length, an index out of range, or one that comes twice.
        """
        index = self._index("keep", rows)
        if not torch.equal(index, torch.arange(self._rows, device=index.device)):
            self._stage(self._tensors, lambda layout: layout.keep(index))
            self._rows = len(index)

    def append(self, rows: Rows, *, copy_from: Index | None = None) -> None:
        """Append rows at the end; every tensor must get as many, which may be none.

        Args:
            rows: for each tensor (by name, by the tensor itself, or in order) new rows of its dtype, device and row
                shape. They are copied. Averages of new rows start at these values.
            copy_from: for each new row the row whose moments it takes over. By default its moments start as in a fresh
                optimizer: at zero.

        Raises:
            UsageError: rows are missing, or of other counts, shapes, dtypes or devices, or an index is out of range.
        """
        new = self._new_rows("append", rows)
        missing = [name for name in self._tensors if name not in new]
        if missing:
            raise UsageError(f"append: no rows for {missing[0]!r}; every tensor of the edit must get as many")
        count = len(next(iter(new.values())))
        self._check_counts("append", new, count)
        source = None if copy_from is None else self._index("append(copy_from)", copy_from, distinct=False)
        if source is not None and len(source) != count:
            raise UsageError(f"append: copy_from has {len(source)} rows for {count} new ones; give one for each")
        if count:
            numbers = self._number(new, count)
            self._stage(new, lambda layout: layout.append(numbers, source))
            self._rows += count

    def replace(self, index: Index, rows: Rows, *, moments: Literal["zero", "keep"] = "zero") -> None:
        """Give rows new values, in some or all of the tensors; tensors that are not given are left alone.

        Args:
            index: a boolean mask, or distinct indices.
            rows: new values, a row for each index, by name, by the tensor itself, or in order. Averages take them too.
            moments: whether the rows' moments start afresh or stay as they are.

        Raises:
            UsageError: an index that is not valid, or rows of other counts, shapes, dtypes or devices.
        """
        if moments not in ("zero", "keep"):
            raise UsageError(f"replace: moments is {moments!r}; give 'zero' or 'keep'")
        at = self._index("replace", index)
        new = self._new_rows("replace", rows)
        self._check_counts("replace", new, len(at))
        if len(at):
            numbers = self._number(new, len(at))
            self._stage(new, lambda layout: layout.replace(at, numbers, afresh=moments == "zero"))

    def commit(self) -> None:
        """Apply everything staged, or raise and change nothing. Tensors for which nothing was staged are left alone.

        Raises:
            UsageError: a tensor has changed its shape meanwhile, or an optimizer's state or an average does not fit it.
            StateError: the edit is closed already.
        """
        self._check_open()
        changed = [name for name, layout in self._layouts.items() if layout is not self._unchanged]
        with torch.inference_mode(False), torch.no_grad():
            moves = {id(layout): Moves(layout, len(self._unchanged.values)) for layout in self._layouts.values()}
            # What can fail, fails here.
            swaps = [swap for name in changed for swap in self._swaps(name, moves[id(self._layouts[name])])]
            exchange([self._tensors[name] for name in changed], swaps)
        self._closed = True

    def __enter__(self) -> RowEdit:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None and not self._closed:
            self.commit()
        self._closed = True

    def _swaps(self, name: str, moves: Moves) -> Iterable[tuple[Tensor, Tensor]]:
        """Yield everything that follows a tensor, the tensor first, each with its new data."""
        tensor = self._tensors[name]
        if tensor.shape != self._shapes[name]:
            raise UsageError(f"row edit: {name!r} has changed its shape since the edit began; begin the edit anew")
        yield tensor, moves.values(tensor, self._new[name])
        for moment, fresh in moments_of(name, tensor, self._optimizers):
            yield moment, moves.moments(moment, fresh)
        for ema in self._emas:
            shadow = ema.shadow_of(tensor)
            if shadow is None or shadow is tensor:
                continue
            if shadow.shape != tensor.shape:
                raise UsageError(
                    f"row edit: the average of {name!r} has shape {tuple(shadow.shape)}, not {tuple(tensor.shape)}"
                )
            yield shadow, moves.values(shadow, self._new[name])

    def _stage(self, names: Iterable[str], change: Callable[[Layout], Layout]) -> None:
        """Change the layouts of some tensors; layouts that were shared stay shared."""
        made: dict[int, Layout] = {}
        for name in names:
            layout = self._layouts[name]
            if id(layout) not in made:
                made[id(layout)] = change(layout)
            self._layouts[name] = made[id(layout)]

    def _number(self, new: Mapping[str, Tensor], count: int) -> Tensor:
        """Take in new rows and return their numbers."""
        for name, rows in new.items():
            self._new[name].append(NewRows(self._next, rows))
        first, self._next = self._next, self._next + count
        return torch.arange(first, self._next, device=self._unchanged.values.device)

    def _index(self, operation: str, rows: Index, *, distinct: bool = True) -> Tensor:
        """Return a mask or indices as distinct valid indices."""
        self._check_open()
        index = rows if isinstance(rows, Tensor) else torch.as_tensor(rows)
        if index.numel() == 0 and not isinstance(rows, Tensor):
            index = index.long()  # an empty list has no type of its own
        if index.dim() != 1 or index.is_floating_point() or index.is_complex():
            raise UsageError(
                f"{operation}: rows are chosen by a boolean mask or integer indices in one dimension, not by"
                f" {index.dtype} of shape {tuple(index.shape)}"
            )
        if index.dtype == torch.bool:
            if len(index) != self._rows:
                raise UsageError(f"{operation}: the mask has {len(index)} entries for {self._rows} rows")
            index = index.nonzero().squeeze(1)
        index = index.detach().to(self._unchanged.values.device, torch.int64)
        if len(index) == 0:
            return index
        low, high = int(index.min()), int(index.max())
        if low < 0 or high >= self._rows:
            raise UsageError(f"{operation}: index {low if low < 0 else high} is out of range for {self._rows} rows")
        if distinct and int(torch.bincount(index, minlength=self._rows).max()) > 1:
            raise UsageError(f"{operation}: row {int(torch.bincount(index).argmax())} comes twice in the indices")
        return index

    def _new_rows(self, operation: str, rows: Rows) -> dict[str, Tensor]:
        """Return copies of new rows by name, each fit for its tensor."""
        self._check_open()
        if isinstance(rows, Mapping):
            names = {id(tensor): name for name, tensor in self._tensors.items()}
            named: dict[Any, Tensor] = {names.get(id(key), key): value for key, value in rows.items()}
        elif len(rows) == len(self._tensors):
            named = dict(zip(self._tensors, rows, strict=True))
        else:
            raise UsageError(f"{operation}: {len(rows)} tensors of rows for an edit of {len(self._tensors)}")
        if not named:
            raise UsageError(f"{operation}: no rows were given")
        for name, value in named.items():
            if name not in self._tensors:
                what = repr(name) if isinstance(name, str) else "such tensor"
                raise UsageError(f"{operation}: this edit has no {what}{nearest(str(name), self._tensors)}")
            _check_rows(operation, name, self._tensors[name], value)
        return {name: value.detach().clone() for name, value in named.items()}

    def _check_counts(self, operation: str, new: Mapping[str, Tensor], count: int) -> None:
        for name, rows in new.items():
            if len(rows) != count:
                raise UsageError(f"{operation}: {len(rows)} rows for {name!r} where {count} belong")

    def _check_open(self) -> None:
        if self._closed:
            raise StateError("this row edit is closed; begin another one")


def _check_tensors(tensors: Mapping[str, Tensor]) -> None:
    """Raise UsageError unless all can be edited together."""
    if not tensors:
        raise UsageError("a row edit needs at least one tensor")
    lengths: dict[int, str] = {}
    seen: dict[int, str] = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.dim() == 0 or tensor.layout != torch.strided:
            raise UsageError(f"row edit: {name!r} is no dense tensor with rows")
        if not tensor.is_leaf or tensor._is_view():
            raise UsageError(f"row edit: {name!r} is computed from or a view of another tensor; edit that one")
        if id(tensor) in seen:
            raise UsageError(f"row edit: {seen[id(tensor)]!r} and {name!r} are the same tensor; give it once")
        seen[id(tensor)] = name
        lengths.setdefault(len(tensor), name)
    if len(lengths) > 1:
        told = ", ".join(f"{name!r} has {length}" for length, name in lengths.items())
        raise UsageError(f"row edit: the tensors differ in their number of rows ({told}); edit them separately")


def _check_rows(operation: str, name: str, tensor: Tensor, rows: object) -> None:
    """Raise UsageError unless `rows` can be rows of `tensor`."""
    if not isinstance(rows, Tensor):
        raise UsageError(f"{operation}: the rows of {name!r} are a {type(rows).__name__}; give a tensor")
    if rows.dim() != tensor.dim() or rows.shape[1:] != tensor.shape[1:]:
        expected = ", ".join(["rows", *map(str, tensor.shape[1:])])
        raise UsageError(f"{operation}: the rows of {name!r} have shape {tuple(rows.shape)}; expected ({expected})")
    if rows.dtype != tensor.dtype or rows.device != tensor.device:
        raise UsageError(
            f"{operation}: the rows of {name!r} are {rows.dtype} on {rows.device}; expected {tensor.dtype} on"
            f" {tensor.device}"
        )
