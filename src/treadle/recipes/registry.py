"""Recipes: YAML files that name a trainer, its data and its config; and the trainers they can name.

A recipe has the same shape as the `config.yaml` of a run, so either can be given to `treadle train`:

    description: fit a photograph with a hash grid   # one line, shown by `treadle recipes`
    trainer: image                                   # a name from this registry, never an import path
    data: null                                       # a path, relative to this file; null: the trainer's own choice
    config: {max_steps: 2000, seed: 0}               # fields of the trainer's Config; the others keep their defaults
    with_data: {max_steps: 9000}                     # other values of them, where data are given

What a step count is right for is a recipe's own choice of data. Where `data` or `--data` names other data, what the
recipe has `with_data` takes the place of what it has in `config`; flags and `--set` go before both.

Other packages add to the registry with entry points of the group `treadle.recipes`. One that names a class
(`name = "package.module:TrainerClass"`) makes a trainer that recipes can name, and that is a recipe of its own with its
default config. One that names a file (`name = "package.recipes:file.yaml"`) makes a recipe of that file.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from treadle.config.fields import convert, from_dict, to_dict
from treadle.config.files import changed, load, override
from treadle.errors import UsageError, nearest, one_line
from treadle.runs.names import GROUP, comes_with_treadle, document, is_file, label, registered, trainer_name

if TYPE_CHECKING:
    from treadle.engine.events import Hook
    from treadle.engine.trainer import Trainer

KEYS = ("description", "trainer", "data", "config", "with_data")


@dataclass(frozen=True)
class Recipe:
    """A trainer class with its resolved config and data: all that determines a run."""

    name: str
    """Its name in the registry, or the file's name without its ending; the trainer's for a `config.yaml`."""
    description: str
    trainer: str
    """What config.yaml calls the trainer: its name in the registry, else "module:Class"."""
    trainer_class: type[Any]
    config: Any
    """An instance of `trainer_class.Config`."""
    data: Path | None
    """What to train on, absolute; None lets the trainer choose."""
    source: str
    """The file it was read from, for messages."""
    feeds: Mapping[str, Any] = field(default_factory=dict)
    """Objects to train and evaluate on, as the trainer's keywords: `data`, `validation_data`, `test_data`.

    They take the place of what `load_data` gives, which is not called where there is a `data`.
    """
    with_data: Mapping[str, Any] = field(default_factory=dict)
    """Settings that take the place of others where data are given; empty once they have."""

    def document(self) -> dict[str, Any]:
        """Return it as plain data in the shape of a recipe file: what a run's `config.yaml` holds."""
        return document(self.trainer, self.config, self.data)

    def with_overrides(self, overrides: Iterable[str]) -> Recipe:
        """Return a copy with each `KEY=VALUE` applied to the config, checked like a file."""
        plain = override(to_dict(self.config), overrides)
        return replace(self, config=from_dict(type(self.config), plain, source="--set"))

    def with_settings(self, settings: Mapping[str, Any]) -> Recipe:
        """Return a copy with settings of the config changed, by (dotted) name, checked like a file."""
        if not settings:
            return self
        plain = changed(to_dict(self.config), settings)
        return replace(self, config=from_dict(type(self.config), plain, source=""))

    def for_given_data(self, data: Path | None = None) -> Recipe:
        """Return a copy for data that are given, at `data` or as objects: with the settings it has for that case."""
        recipe = self.with_settings(self.with_data)
        return replace(recipe, data=self.data if data is None else data, with_data={})

    def build(
        self,
        *,
        run_dir: str | Path | None = None,
        hooks: Sequence[Hook] = (),
        resume: bool | Literal["auto"] = False,
        testing: bool = False,
    ) -> Trainer:
        """Return the trainer, ready to train; with `run_dir` as a run on disk, whose `config.yaml` is this recipe.

        With `resume` it goes on with the run that is there, as `Trainer` says; for `testing` alone its data need hold
        nothing to train on. Raises UsageError for a trainer whose `__init__` asks for more than a command can give.
        """
        load = self.trainer_class.load_test_data if testing else self.trainer_class.load_data
        data = {} if "data" in self.feeds else load(self.config, self.data)
        given = {"config": self.config, **data, **self.feeds, "run_dir": run_dir, "hooks": hooks, "resume": resume}
        _check_makeable(self.trainer_class, given)
        trainer: Trainer = self.trainer_class(**given)
        if trainer.run is not None and not trainer.run.has("config.yaml"):
            # The trainer's own config: what was left to it ("auto") is settled there.
            trainer.run.write_config(document(self.trainer, trainer.config, self.data))
        return trainer


@dataclass(frozen=True)
class Listed:
    """A line of `treadle recipes`. `problem` says why a broken third-party recipe cannot be used, else it is empty."""

    name: str
    description: str
    origin: str
    problem: str = ""


def recipe_of(trainer_class: type[Any]) -> Recipe:
    """The recipe that a trainer class is by itself: its default config, and its own choice of data."""
    name = trainer_name(trainer_class) or trainer_class.__name__.lower()
    default = from_dict(trainer_class.Config, {}, source=trainer_class.__name__)
    return Recipe(name, _first_line(trainer_class), label(trainer_class), trainer_class, default, None, name)


def load_recipe(name: str | Path, trainer_class: type[Any] | None = None) -> Recipe:
    """Load a recipe by its name in the registry, or from a YAML file (a run's `config.yaml` is one).

    With `trainer_class` the file's trainer is that class, which has to be of the name that the file gives; it need not
    be in the registry. Raises UsageError in one line for an unknown name, an unreadable file, and everything wrong in
    its content.
    """
    text, files = str(name), _files()
    if trainer_class is not None:
        return _read(files.get(text, Path(name)), trainer_class)
    if text in files:
        return replace(_read(files[text]), name=text)
    if text in registered():
        return replace(recipe_of(trainer(text)), name=text, trainer=text)
    if isinstance(name, Path) or text.endswith((".yaml", ".yml")) or "/" in text or "\\" in text or Path(text).exists():
        return _read(Path(text))
    tail = nearest(text, {*files, *registered()})
    raise UsageError(f"unknown recipe {text!r}{tail} (or give a YAML file)")


def list_recipes() -> list[Listed]:
    """Return every recipe that can be trained, shipped ones first; imports no trainer of Treadle's own."""
    rows = []
    for name, path in sorted(_files().items()):
        point = registered().get(name)
        origin = "treadle" if point is None or comes_with_treadle(point) else _distribution(point)
        try:
            rows.append(Listed(name, str(_checked(path).get("description", "")), origin))
        except UsageError as error:
            rows.append(Listed(name, "", origin, str(error)))
    for name, point in sorted(registered().items()):
        if name not in _files():
            try:
                rows.append(Listed(name, _first_line(trainer(name)), _distribution(point)))
            except UsageError as error:
                rows.append(Listed(name, "", _distribution(point), str(error)))
    return rows


def trainer(name: str, *, source: str = "") -> type[Any]:
    """Return the trainer class of that name. Raises UsageError for an unknown one, or one that cannot be imported."""
    where = f"{source}: " if source else ""
    points = {key: point for key, point in registered().items() if not is_file(point)}
    if ":" in name:
        raise UsageError(
            f"{where}trainer {name!r} is not in the registry, and a file cannot name code: name it on the command line "
            f"(--trainer FILE.py:{name.rpartition(':')[2]}), or make it known by an entry point of the group {GROUP!r}"
        )
    if not any(map(comes_with_treadle, points.values())):
        raise UsageError(f"{where}no trainer is registered here, not even Treadle's: install it again (make env)")
    if name not in points:
        raise UsageError(
            f"{where}trainer {name!r} is unknown{nearest(name, points)} (--trainer FILE.py:CLASS names one of your own)"
        )
    target = points[name].value
    module, _, attribute = target.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # a third party's module may fail in any way: it is named, in one line
        raise UsageError(f"{where}trainer {name!r} ({target}) cannot be imported: {one_line(error)}") from error
    from treadle.engine.trainer import Trainer

    if not (isinstance(found, type) and issubclass(found, Trainer)):
        raise UsageError(f"{where}trainer {name!r} ({target}) is not a subclass of treadle.Trainer")
    return found


def _read(path: Path, given: type[Any] | None = None) -> Recipe:
    content = _checked(path)
    source = str(path)
    named = content["trainer"]
    if given is not None and given.__qualname__ != named.rpartition(":")[2] and label(given) != named:
        raise UsageError(f"{source} was written by the trainer {named!r}, not by {given.__qualname__!r}")
    trainer_class = trainer(named, source=source) if given is None else given
    settings = content.get("config")
    config = from_dict(trainer_class.Config, {} if settings is None else settings, source=source, at="config")
    data = convert(content.get("data"), Path | None, source=source, at="data")
    if data is not None:
        data = (path.parent / data.expanduser()).resolve()
    description = content.get("description") or ""
    name = named.rpartition(":")[2].lower() if path.stem == "config" else path.stem  # a run's is named by its trainer
    with_data = convert(content.get("with_data") or {}, dict[str, Any], source=source, at="with_data")
    from_dict(trainer_class.Config, changed(to_dict(config), with_data), source=source, at="with_data")
    recipe = Recipe(name, description, named, trainer_class, config, data, source, with_data=with_data)
    return recipe if data is None else recipe.for_given_data()


def _checked(path: Path) -> dict[str, Any]:
    """Read a recipe's document and check everything that needs no trainer."""
    content = load(path)
    for key in content:
        if key not in KEYS:
            raise UsageError(f"{path}: {key!r} is not a key of a recipe{nearest(str(key), KEYS)}")
    if "trainer" not in content:
        raise UsageError(f"{path}: the key 'trainer' is missing: expected a name such as 'image'")
    convert(content["trainer"], str, source=str(path), at="trainer")
    convert(content.get("description"), str | None, source=str(path), at="description")
    return content


@cache
def _files() -> dict[str, Path]:
    """The YAML recipes by name: the shipped ones, and those that entry points name."""
    shipped = Path(str(resources.files("treadle"))) / "recipes"
    found = {path.stem: path for path in sorted(shipped.glob("*.yaml"))}
    for name, point in registered().items():
        if is_file(point):
            package, _, file = point.value.partition(":")
            try:
                found.setdefault(name, Path(str(resources.files(package.strip()))) / file.strip())
            except ImportError:
                found.setdefault(name, Path(point.value))
    return found


def _check_makeable(trainer_class: type[Any], given: Mapping[str, Any]) -> None:
    try:
        inspect.signature(trainer_class).bind(**given)
    except TypeError as error:
        raise UsageError(
            f"{trainer_class.__name__} cannot be made by a command, which gives {', '.join(given)} by name: {error}; "
            "hand these on (**kwargs), and make what else it needs settings of its Config"
        ) from None


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "?"


def _first_line(trainer_class: type[Any]) -> str:
    return (trainer_class.__doc__ or "").strip().partition("\n")[0]
