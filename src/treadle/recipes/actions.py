"""What `treadle resume`, `fork`, `verify` and `test` do, as functions of a run; and `try_out`, of a trainer.

    import treadle

    trainer = treadle.resume("runs/line", trainer=Line, data=(x, y))
    trainer.train()
    assert treadle.verify("runs/line", trainer=Line, data=(x, y)).holds

A run's files say which trainer it is, by name, and which data, by path; whatever has no name or path is given here:

- `trainer`: the class, or its name in the registry. It may be left out where the run's config.yaml has such a name.
- `data`: a path for the trainer's `load_data`, in place of the one on record; or what its constructor takes as `data`.
  `validation_data` and `test_data` are given as the constructor takes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.checkpoint.store import read_checkpoint
from treadle.engine.settings import StartSettings
from treadle.engine.subject import Subject
from treadle.errors import UsageError
from treadle.files import existing, make_report_directory, to_json, write_whole
from treadle.recipes import registry
from treadle.recipes.registry import Recipe, load_recipe, recipe_of
from treadle.recipes.try_out import TryOut, try_recipe
from treadle.runs.fork import changed_hyperparameters, checkpoint_at, fork_run
from treadle.runs.models import At, find_model
from treadle.runs.other_data import redirect
from treadle.runs.resume import changes_of_future
from treadle.runs.run import CONFIG, find_run
from treadle.runs.verify import Verdict, start_of, verify_run
from treadle.terminal import say

if TYPE_CHECKING:
    from treadle.data.feed import Feed
    from treadle.engine.events import Hook
    from treadle.engine.trainer import Trainer


def resume(
    run: str | Path,
    *,
    trainer: type[Trainer] | str | None = None,
    data: Any = None,
    validation_data: Any = None,
    test_data: Any = None,
    hooks: Sequence[Hook] = (),
    **settings: Any,
) -> Trainer:
    """The trainer of a run, where its newest good checkpoint left it; `train` or `iterate` go on from there.

    Args:
        run: its directory, `runs/line/v001`, or `runs/line` for its newest version.
        trainer: its class, or its name in the registry; needed where the run's config.yaml has no such name.
        data: a path for the trainer's `load_data`, in place of that on record, or what its constructor takes as such.
        validation_data, test_data: what its constructor takes under these names.
        hooks: for this session.
        settings: those that a resume may change, such as `max_epochs`; a dotted name reaches into a group.

    Raises:
        UsageError: no such run, a setting that determines the past, other data, or a trainer that is not the run's.
        StateError: the run's state does not fit the trainer.

    Example:
        treadle.resume("runs/image", max_steps=5000).train()
    """
    directory = find_run(run)
    recipe = recipe_of_run(directory, trainer, data, validation_data, test_data)
    return recipe.with_settings(settings).build(run_dir=directory, hooks=hooks, resume=True)


def fork(
    run: str | Path,
    at: int,
    *,
    trainer: type[Trainer] | str | None = None,
    data: Any = None,
    validation_data: Any = None,
    test_data: Any = None,
    hooks: Sequence[Hook] = (),
    run_dir: str | Path | None = None,
    **settings: Any,
) -> Trainer:
    """The trainer of a new run that goes on from the checkpoint of `run` after `at` steps, with other settings.

    The checkpoint is copied, and kept for good in the parent. With other data than the run had, weights, optimizers
    and the step stay, and the place in the data is that of a run which had these from its start.

    Args:
        run, trainer, hooks: as for `resume`.
        data, validation_data, test_data: as for `resume`; they may be others than the run had.
        at: the step of a checkpoint.
        run_dir: where it goes; by default it is the next version beside its parent.
        settings: those that are to differ, any of them.

    Raises:
        UsageError: no such run or checkpoint; StateError where the checkpoint is damaged or does not fit.

    Example:
        treadle.fork("runs/image", at=500, lr="cosine 5e-3 to 1e-4").train()
    """
    directory = find_run(run)
    before = recipe_of_run(directory, trainer, data, validation_data, test_data)
    return branch(directory, before, before.with_settings(settings), at, run_dir, hooks)


def verify(
    run: str | Path,
    *,
    start: int | None = None,
    trainer: type[Trainer] | str | None = None,
    data: Any = None,
    validation_data: Any = None,
    test_data: Any = None,
) -> Verdict:
    """Take a run's steps again from a checkpoint, and compare the digest of the state at each later one.

    Args:
        run, trainer, data, validation_data, test_data: as for `resume`. Nothing in the run is changed.
        start: the step of the checkpoint to start from, 0 for the beginning; by default the last but one.

    Returns what was compared: `holds` says whether all was equal, `differences` name what was not.

    Raises UsageError where there is nothing to compare with, StateError where a checkpoint is damaged.
    """
    directory = find_run(run)
    recipe = recipe_of_run(directory, trainer, data, validation_data, test_data)
    return replay(directory, recipe, start)


def test(
    run: str | Path,
    *,
    at: At | None = None,
    trainer: type[Trainer] | str | None = None,
    data: Any = None,
    **settings: Any,
) -> dict[str, Any]:
    """Evaluate a model of a run on its test data, and write pictures and figures into `RUN/test`.

    Without test data of its own the trainer's validation data is taken.

    Args:
        run, trainer: as for `resume`.
        at: which model: "best", "final" (that of the newest checkpoint), or the step of one that is kept; by default
            the trainer's `preferred_model`, which is the best one unless networks play against each other.
        data: what to test on instead: a path for `load_data`, or an object, as `test_data` of the trainer takes it.
        settings: those that concern the evaluation.

    Returns the results by name: the metrics, which `model` it is and its `step`, and where the `report` is.

    Raises UsageError where there is no such model or nothing to test on.
    """
    directory = find_run(run)
    path = isinstance(data, str | Path)
    recipe = recipe_of_run(directory, trainer, data if path else None, test_data=None if path else data)
    return evaluate(directory, recipe.with_settings(settings), at)


def try_out(
    trainer: type[Trainer] | str | Path,
    *,
    data: Any = None,
    validation_data: Any = None,
    test_data: Any = None,
    **settings: Any,
) -> TryOut:
    """Try a trainer out: two steps of everything, in a moment, before the hours that a run takes.

    It trains for two steps, saves a checkpoint in between, resumes from that and compares the states, validates on two
    batches, makes the examples, ends the run (an epoch has two steps), writes the reports and tests on two batches. No
    file is kept, and no hook or sink takes part but those of the trainer and its settings.

    Args:
        trainer: its class, a recipe's name, or a recipe's file.
        data, validation_data, test_data: as for `resume`.
        settings: of the trainer, by (dotted) name.

    Returns the seconds of each, and whether the resumed run was the same. Raises whatever goes wrong, with a note that
    says where.

    Example:
        assert treadle.try_out(Line, data=(x, y), validation_data=held_out, max_epochs=20).holds
    """
    recipe = recipe_of(trainer) if isinstance(trainer, type) else load_recipe(trainer)
    return try_recipe(given_data(recipe, data, validation_data, test_data).with_settings(settings))


test.__test__ = False  # type: ignore[attr-defined]  # of pytest, which would take it for one of its own


# What the commands use, which have settings of their own to apply ---------------------------------------------------


def recipe_of_run(
    run: Path,
    trainer: type[Trainer] | str | None = None,
    data: Any = None,
    validation_data: Any = None,
    test_data: Any = None,
) -> Recipe:
    """The recipe of the run in the directory `run`: its config.yaml, and what is given besides.

    Raises UsageError in one line, also where the run was trained by a class of another name.
    """
    kind = registry.trainer(trainer) if isinstance(trainer, str) else trainer
    return given_data(load_recipe(run / CONFIG, kind), data, validation_data, test_data)


def given_data(recipe: Recipe, data: Any = None, validation_data: Any = None, test_data: Any = None) -> Recipe:
    """The recipe with other data: `data` is a path or an object, the others are objects; None leaves what there is."""
    if isinstance(data, str | Path):
        recipe, data = recipe.for_given_data(existing(data, "data")), None
    elif data is not None:
        recipe = recipe.for_given_data()
    feeds = {"data": data, "validation_data": validation_data, "test_data": test_data}
    return replace(recipe, feeds={name: given for name, given in feeds.items() if given is not None})


def branch(
    parent: Path, before: Recipe, recipe: Recipe, at: int, run_dir: str | Path | None, hooks: Sequence[Hook] = ()
) -> Trainer:
    """The trainer of a new run, with `recipe`, from the checkpoint of `parent` after `at` steps of `before`."""
    return recipe.build(run_dir=branched(parent, before, recipe, at, run_dir), hooks=hooks, resume=True)


def branched(
    parent: Path, before: Recipe, recipe: Recipe, at: int, run_dir: str | Path | None, *, same_data: bool = False
) -> Path:
    """The directory of the run that `branch` goes on with, which anybody may resume.

    With `same_data`, raises UsageError where the data are not those that the parent has been trained on.
    """
    if begins_with(before) != begins_with(recipe):
        raise UsageError(f"init: a fork goes on with the weights of step {at}: begin a new run (treadle train) instead")
    with without_init(before).build() as old, without_init(recipe).build() as new:
        changes = changed_hyperparameters(old.parts.optimizers, new.parts.optimizers)
        redirected = redirect(read_checkpoint(checkpoint_at(parent, at)), new)
    if redirected is not None and same_data:
        raise UsageError(f"its data are not those that {parent} was trained on: {redirected}")
    target = None if run_dir is None else Path(run_dir)
    others = changes_of_future(parent, recipe.config)
    others += sorted({f"{change['optimizer']}.{change['key']}" for change in changes} if not others else ())
    directory = fork_run(parent, at, recipe.document(), target, changes, redirected, others)
    if redirected is not None:
        say(f"treadle: {redirected}")
    elif others:
        say(f"treadle: with other {', '.join(others)} nothing is best yet: the next validation begins anew")
    return directory


def begins_with(recipe: Recipe) -> Any:
    """What the settings say of the weights to begin with."""
    names = ("init", "init_mapping", "init_partial")
    return isinstance(recipe.config, StartSettings) and [getattr(recipe.config, name) for name in names]


def without_init(recipe: Recipe) -> Recipe:
    """The recipe without weights to begin with, which may be gone: for a trainer that is given a run's own."""
    config = recipe.config
    return replace(recipe, config=config.without_init()) if isinstance(config, StartSettings) else recipe


def replay(run: Path, recipe: Recipe, start: int | None = None) -> Verdict:
    """Verify the run in the directory `run`, which `recipe` makes again: see `verify_run`."""
    start = start_of(run, recipe.trainer_class.Config, start)
    again = without_init(recipe) if start else recipe
    return verify_run(run, lambda where: again.build(run_dir=where), start)


def evaluate(run: Path, recipe: Recipe, at: At | None = None, lines: Path | None = None) -> dict[str, Any]:
    """Test the model `at` a step of the run in the directory `run` (see `find_model`); its results by name.

    `lines` is a file of streamlines that are judged in place of the test data, for trainers that know them.
    """
    found = find_model(run, at, recipe.trainer_class.preferred_model)
    with without_init(recipe).build(testing=True) as trainer:
        found.put_into(trainer.parts)
        trainer.loop.loaded = trainer.loop.taken, str(found)
        feed = trainer.test_feed or trainer.validation_feed
        if lines is not None:
            if not hasattr(trainer, "feed_of_lines"):
                raise UsageError(f"--lines: {type(trainer).__name__} does not learn where streamlines go on")
            feed = trainer.feed_of_lines(lines)
        if feed is None:
            raise UsageError(f"{type(trainer).__name__} has neither test nor validation data to test on")
        return tested(trainer, feed, run.absolute() / "test", {"model": str(found), "step": found.step})


def reported(trainer: Trainer, directory: Path) -> dict[str, Any]:
    """What a trainer at its run's end reports into `directory`, on the model that `test` takes; the results by name.

    Where that is the best model, the trainer has its weights and validation metrics from then on.
    """
    make_report_directory(directory)
    best = trainer.best
    has_own = type(trainer).report is not Subject.report
    if has_own and trainer.preferred_model == "best" and best is not None and best["step"] != trainer.progress.step:
        trainer.load_best()
        trainer.loop.validation_metrics = dict(best["metrics"])
    found = trainer.report(directory) or {**trainer.metrics, **trainer.validation_metrics}
    return {"model": trainer.shown_model, **found}


def tested(trainer: Trainer, feed: Feed, report: Path, results: Mapping[str, Any]) -> dict[str, Any]:
    """Let `trainer` report on `feed` into the directory `report`; `results` and its own, by name."""
    make_report_directory(report)
    known = {**results, **trainer.test_report(report, feed)}
    write_whole(report / "metrics.json", to_json(known) + "\n")
    return known | {"report": report}
