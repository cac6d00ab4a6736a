"""Attributes: what of a trainer's own comes back, as what it was, and which names it may have."""

from __future__ import annotations

import collections
import enum
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from relied_on import Fit, after, asserted_by, end, fit, killed, resumed, resumes_exactly, trained
from torch import nn

from treadle import Hook, StateError, Trainer, UsageError, setting
from treadle.engine.settings import TrainerConfig


def keeping(first: Any, change: Any = None) -> Any:
    """A `Fit` with `self.kept`, which begins as `first()` and which `change(trainer)` changes in every step."""

    class Keeps(Fit):
        def setup(self) -> None:
            super().setup()
            self.kept = first()

        def post_step(self, batch: Any, outputs: Any) -> None:
            if change is not None:
                change(self)

    return Keeps


def assign(function: Any) -> Any:
    """What sets `kept` to a function of it."""
    return lambda trainer: setattr(trainer, "kept", function(trainer.kept))


@asserted_by("torchtnt test_miscellaneous_stateful", "Ignite test_state_custom_attrs_init")
def test_counters_come_back(tmp_path: Path) -> None:
    """A number that the trainer counts in an attribute goes on after a kill."""
    assert resumes_exactly(4, tmp_path, keeping(lambda: 0, assign(lambda kept: kept + 1))).kept == 6


@asserted_by("Ignite test_state_dict_with_user_keys")
def test_lists_and_dicts_of_data_come_back(tmp_path: Path) -> None:
    """Nested lists and dicts of numbers and text come back with their types and order."""
    value = {"b": [1, 2.5, "text", None, True], "a": {"deep": [[1], [2]]}}
    assert resumed(2, tmp_path, keeping(lambda: value)).kept == value


def test_numbers_come_back_to_the_last_bit(tmp_path: Path) -> None:
    """Integers beyond 64 bits, the smallest floats, infinities, NaN and the sign of zero come back as they were."""
    kept = resumed(1, tmp_path, keeping(lambda: [2**70, 5e-324, math.inf, math.nan, -0.0, 0.1 + 0.2])).kept
    assert kept[0] == 2**70 and kept[1] == 5e-324 and kept[2] == math.inf and math.isnan(kept[3])
    assert math.copysign(1, kept[4]) == -1 and kept[5] == 0.1 + 0.2


def test_dicts_with_keys_of_other_types_come_back(tmp_path: Path) -> None:
    """Dicts with keys that are numbers or tuples come back with them, not with text."""
    value = {1: "one", (2, "x"): [2], "~odd": 3, "1": "text"}
    assert resumed(1, tmp_path, keeping(lambda: value)).kept == value


def test_tensors_of_every_dtype_come_back(tmp_path: Path) -> None:
    """Tensors of half, double, integer, boolean and complex dtypes come back with their dtype and shape."""
    names = ("float16", "bfloat16", "float64", "int8", "int64", "bool", "complex64")
    made = [torch.arange(6).reshape(2, 3).to(getattr(torch, name)) for name in names]
    kept = resumed(1, tmp_path, keeping(lambda: [tensor.clone() for tensor in made])).kept
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(kept, made, strict=True))


def test_numpy_arrays_and_scalars_come_back(tmp_path: Path) -> None:
    """NumPy arrays and scalars come back as such, with their dtype: a float32 is no Python float."""
    kept = resumed(1, tmp_path, keeping(lambda: [np.arange(4, dtype=np.int16), np.float32(0.1), np.int64(3)])).kept
    assert kept[0].dtype == np.int16 and kept[0].tolist() == [0, 1, 2, 3]
    assert type(kept[1]) is np.float32 and type(kept[2]) is np.int64


class Pair(NamedTuple):
    left: int
    right: float


def test_tuples_and_named_tuples_come_back(tmp_path: Path) -> None:
    """A tuple comes back as a tuple, a named tuple as a named tuple."""
    kept = resumed(1, tmp_path, keeping(lambda: [(1, 2), Pair(3, 4.0)])).kept
    assert type(kept[0]) is tuple and type(kept[1]) is Pair and kept[1].right == 4.0


def test_counters_and_default_dicts_come_back(tmp_path: Path) -> None:
    """`Counter`, `OrderedDict` and `defaultdict` come back as what they were, and go on counting."""

    def count(trainer: Any) -> None:
        trainer.kept[0]["steps"] += 1
        trainer.kept[2][trainer.progress.batch].append(1)

    kinds = collections.Counter, collections.OrderedDict, collections.defaultdict
    make = lambda: [kinds[0](a=1), kinds[1](b=1, a=2), kinds[2](list)]  # noqa: E731
    kept = resumes_exactly(4, tmp_path, keeping(make, count)).kept
    assert [type(entry) for entry in kept] == list(kinds) and kept[0]["steps"] == 6


def test_a_deque_comes_back_with_its_bound(tmp_path: Path) -> None:
    """A `deque` (of the last losses) comes back with what it holds and with its `maxlen`."""
    change = lambda trainer: trainer.kept.append(trainer.progress.step)  # noqa: E731
    kept = resumes_exactly(4, tmp_path, keeping(lambda: collections.deque(maxlen=3), change)).kept
    assert list(kept) == [4, 5, 6] and kept.maxlen == 3


class Mode(enum.Enum):
    SEEK = "seek"
    FIND = "find"


@dataclass(frozen=True)
class Point:
    x: int


class Replaces(Fit):
    """Puts other constants in the place of those of `setup`."""

    def setup(self) -> None:
        super().setup()
        self.mode, self.place, self.dtype, self.point = Mode.SEEK, Path("sought"), torch.float32, Point(0)

    def post_step(self, batch: Any, outputs: Any) -> None:
        self.mode, self.place, self.dtype, self.point = Mode.FIND, Path("found"), torch.float16, Point(7)


def test_values_that_are_replaced_come_back(tmp_path: Path) -> None:
    """An enum, a path, a dtype or a frozen dataclass that an attribute changes to is what it is after a kill."""
    trainer = resumed(2, tmp_path, Replaces)
    assert (trainer.mode, trainer.place) == (Mode.FIND, Path("found"))
    assert (trainer.dtype, trainer.point) == (torch.float16, Point(7))


class Tally:
    """An object with state of its own."""

    def __init__(self) -> None:
        self.total = 0

    def state_dict(self) -> dict[str, int]:
        return {"total": self.total}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.total = state["total"]


@asserted_by("torchtnt test_miscellaneous_stateful", "Accelerate test_automatic_loading")
def test_objects_with_a_state_dict_come_back(tmp_path: Path) -> None:
    """Any object with `state_dict` and `load_state_dict` is part of the state, without being registered."""

    def change(trainer: Any) -> None:
        trainer.kept.total += trainer.progress.step

    assert resumes_exactly(4, tmp_path, keeping(Tally, change)).kept.total == 21


@asserted_by("Accelerate test_invalid_registration", "Lightning test_invalid_scheduler_missing_state_dict")
def test_refuses_an_object_that_cannot_be_saved(tmp_path: Path) -> None:
    """An object with state and no way to save it is refused at the first checkpoint by name, never at the resume."""

    class Opaque:
        value = 1

    trainer = fit(keeping(Opaque), run_dir=tmp_path / "run", save_every="1 step")
    with pytest.raises(StateError, match=r"kept is a .*: give it state_dict\(\) and load_state_dict\(\)"):
        trainer.train()


def test_what_is_transient_is_not_saved(tmp_path: Path) -> None:
    """An attribute named in `transient` (a socket, a cache) is nobody's state, and `setup` makes it anew."""
    kind = keeping(lambda: object())
    kind.transient = ("kept",)
    assert resumed(2, tmp_path, kind).train().status == "finished"


@asserted_by("Accelerate test_can_resume_training")
def test_generators_of_ones_own_go_on(tmp_path: Path) -> None:
    """Generators of torch, NumPy and Python that are attributes go on in mid-stream after a kill."""

    def change(trainer: Any) -> None:
        torchs, numpys, pythons = trainer.kept
        trainer.drawn = [float(torch.rand((), generator=torchs)), float(numpys.random()), pythons.random()]

    make = lambda: [torch.Generator().manual_seed(1), np.random.default_rng(2), random.Random(3)]  # noqa: E731
    kind = keeping(make, change)
    kind.transient = ("drawn",)
    whole, other = fit(kind), resumed(4, tmp_path, kind)
    whole.train(), other.train()
    assert whole.drawn == other.drawn


@asserted_by("torchtnt test_reassigning_attributes")
def test_an_attribute_first_set_in_a_step_comes_back(tmp_path: Path) -> None:
    """An attribute that `step` sets for the first time, and `setup` does not know, is part of the state too."""

    class Late(Fit):
        def step(self, batch: Any) -> Any:
            self.last = batch[0].sum()
            return super().step(batch)

    assert resumed(4, tmp_path, Late).last.shape == ()


def test_views_of_one_tensor_are_still_views(tmp_path: Path) -> None:
    """Two views of one tensor share its memory after a resume too, or the first save refuses them."""
    make = lambda: (whole := torch.zeros(4), [whole, whole[:2]])[1]  # noqa: E731
    kept = resumed(2, tmp_path, keeping(make)).kept
    kept[1].fill_(1)
    assert kept[0].tolist() == [1.0, 1.0, 0.0, 0.0]


@asserted_by("Lightning test_module_current_fx_attributes_reset")
def test_refuses_a_name_that_the_engine_needs() -> None:
    """`self.metrics = ...`, a name of the engine's, is refused where it is set, with another name as the remedy."""

    class Takes(Fit):
        def setup(self) -> None:
            super().setup()
            self.metrics = {}

    with pytest.raises(UsageError, match=r"metrics.*(choose|give it) another name"):
        fit(Takes)


def test_refuses_a_class_attribute_that_hides_one_of_the_engines() -> None:
    """A class attribute, or a method, that would hide one of the engine's is refused where the class is defined."""
    with pytest.raises(UsageError, match=r"Hides.parts hides what the trainer itself needs: choose another name"):

        class Hides(Trainer):
            parts = 3


def test_names_with_an_underscore_are_the_authors() -> None:
    """Names with an underscore in front (`self._steps`, `self._loop`) are the author's: the engine has none there."""

    class Hidden(Fit):
        def setup(self) -> None:
            super().setup()
            self._steps = self._loop = self._batches = self._counts = 0

        def _settle(self) -> int:
            return 1

    assert end(fit(Hidden)) and fit(Hidden).train().step == 6


@asserted_by("Ignite test_with_state_dict")
def test_hooks_and_trainers_may_add_to_a_checkpoint(tmp_path: Path) -> None:
    """What `on_save` puts into a checkpoint is handed back by `on_load`, tensors too."""
    told: list[Any] = []

    class Adds(Fit):
        def on_save(self, state: dict[str, Any]) -> None:
            state["seen"] = torch.arange(3), self.progress.step

        def on_load(self, state: dict[str, Any]) -> None:
            told.append(state["seen"])

    resumed(4, tmp_path, Adds)
    assert len(told) == 1 and told[0][0].tolist() == [0, 1, 2] and told[0][1] == 4


def test_refuses_a_misspelt_setting() -> None:
    """A misspelt keyword is refused when the trainer is made, with the nearest setting there is."""
    with pytest.raises(UsageError, match="'max_epoch' is no setting of TrainerConfig; did you mean 'max_epochs'"):
        fit(max_epoch=3)


class Sized(Fit):
    """With a setting of its own."""

    @dataclass(kw_only=True)
    class Config(TrainerConfig):
        """One more."""

        width: int = setting(4, least=1)
        """Hidden units."""

    def setup(self) -> None:
        self.model = nn.Sequential(nn.Linear(1, self.config.width), nn.Linear(self.config.width, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)


@asserted_by("Lightning test_load_model_from_checkpoint")
def test_settings_of_ones_own_are_checked_and_kept(tmp_path: Path) -> None:
    """A subclass's own settings are keywords too, are checked, and a resume with another value is refused."""
    path = killed(2, tmp_path, Sized, width=8)
    with fit(Sized, width=8, run_dir=path, resume=True) as trainer:
        assert trainer.model[0].out_features == 8
    with pytest.raises(UsageError, match=r"a resume cannot change width \(8 -> 4\)"):
        fit(Sized, width=4, run_dir=path, resume=True)


def test_refuses_a_setting_out_of_its_range() -> None:
    """A setting of one's own that is out of its range is refused when the trainer is made."""
    with pytest.raises(UsageError, match=r"width is 0.*at least 1"):
        fit(Sized, width=0)


def test_what_hooks_keep_comes_back(tmp_path: Path) -> None:
    """A hook's `state_dict` is part of the state; a resume without that hook is refused by its name."""

    class Remembers(Hook):
        def __init__(self) -> None:
            self.steps = 0

        def post_step(self, trainer: Trainer, batch: Any, outputs: Any) -> None:
            self.steps += 1

        def state_dict(self) -> dict[str, int]:
            return {"steps": self.steps}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.steps = state["steps"]

    trainer = after(4, fit(run_dir=tmp_path / "run", hooks=[Remembers()]))
    trainer.save()
    trainer.close()
    hook = Remembers()
    fit(run_dir=trainer.run.path, resume=True, hooks=[hook]).train()
    assert hook.steps == 6


def test_refuses_to_go_on_without_an_attribute_of_setup(tmp_path: Path) -> None:
    """An attribute of `setup` that is deleted in mid-run is refused at the next checkpoint, never at the resume."""

    class Deletes(Fit):
        def setup(self) -> None:
            super().setup()
            self.scratch = torch.zeros(3)

        def post_epoch(self) -> None:
            del self.scratch

    with pytest.raises(StateError, match=r"attribute 'scratch' was deleted since setup, .*: set it to None instead"):
        trained(Deletes, run_dir=tmp_path / "run", save_every="1 step")
