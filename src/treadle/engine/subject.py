"""What a trainer's author writes: the methods that the loop calls, and those that commands and reports use."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor

from treadle.data.batch import batch_elements
from treadle.data.feed import Feed
from treadle.engine.events import Events
from treadle.engine.parts import Parts
from treadle.errors import UsageError


class Subject(Events):
    """The side of a trainer that is its author's. Of all this only `step` has to be written."""

    parts: Parts
    """What its attributes are."""
    feed: Feed | None
    """What it is trained on."""
    validation_feed: Feed | None
    test_feed: Feed | None
    occasional_metrics: ClassVar[Collection[str]] = ()
    """Metrics that `post_validation` adds to some validations alone, say because they take long: where one is
    monitored, a validation without it changes neither the best model nor patience."""
    preferred_model: ClassVar[Literal["best", "final"]] = "best"
    """Which model of its runs is tested, exported and loaded where nobody says which: the best by `monitor`, or that of
    the end. A game between networks has no figure that falls with what it is after, so "final" is its own."""

    least_epochs: ClassVar[int] = 0
    """Times that such a trainer should see data which are given to it: `treadle train` says where it will be fewer."""

    one_scene: ClassVar[bool] = False
    """Whether what is learnt lies where its data say, so that a fork cannot go on with other data."""

    def setup(self) -> None:
        """Build modules, optimizers and whatever else the run needs, as attributes. Random draws follow the seed."""

    def step(self, batch: Any) -> Mapping[str, Any] | Tensor:
        """Train on one batch: compute a loss, call `minimize`, return the scalars to log (or the loss itself)."""
        raise UsageError(f"{type(self).__name__} has no step(self, batch): write one that calls self.minimize(loss)")

    def validation_step(self, batch: Any) -> Mapping[str, Any] | Tensor:
        """Return the scalars of one validation batch; they are averaged over the whole set, weighted by elements.

        A metric object (torchmetrics', or any with `update`, `compute` and `reset`) that was updated here may be
        returned in the place of a scalar: it is computed once over the whole set, and then reset.
        """
        raise UsageError(f"{type(self).__name__} has data to evaluate but no validation_step(self, batch): write one")

    def test_step(self, batch: Any) -> Mapping[str, Any] | Tensor:
        """Return the scalars of one test batch; by default what `validation_step` returns."""
        return self.validation_step(batch)

    def predict_step(self, batch: Any) -> Any:
        """What `predict` returns of one batch; by default what the only module with parameters makes of it.

        A module is called with a tensor as it is, with the entries of a tuple or list, or with a mapping's as keywords.
        """
        models = [module for module in self.parts.modules.values() if any(True for _ in module.parameters())]
        if len(models) != 1:
            raise UsageError(
                f"{type(self).__name__} has {len(models)} modules with parameters, and no predict_step(self, batch) "
                "that says which of them predicts: write one"
            )
        if isinstance(batch, tuple | list):
            return models[0](*batch)
        return models[0](**batch) if isinstance(batch, Mapping) else models[0](batch)

    def elements(self, batch: Any) -> int:
        """How many elements a batch counts for in means and accumulation; by default its first dimension."""
        return batch_elements(batch)

    # What it may offer: commands, reports and the studio use it ----------------------------------------------------

    @classmethod
    def load_data(cls, config: Any, path: Path | None) -> dict[str, Any]:
        """Load what a recipe trains on: `data`, and where there are some `validation_data` and `test_data`.

        `path` is what the recipe or `--data` names; None asks for the trainer's own choice. Raises UsageError for
        data that cannot be used.
        """
        if path is not None:
            raise UsageError(
                f"{cls.__name__} takes no data path (given: {path}): leave data out, or override load_data"
            )
        return {}

    @classmethod
    def load_test_data(cls, config: Any, path: Path | None) -> dict[str, Any]:
        """Load what a run is tested on: by default all that `load_data` does. Nothing to train on is needed here."""
        return cls.load_data(config, path)

    def examples(self) -> Mapping[str, Any]:
        """Pictures of how far it is, by name, as `log_image` takes them; none by default."""
        return {}

    def views(self) -> Mapping[str, Any]:
        """What the studio shows live, by name; none by default, and `examples()` is always one.

        Each is a `treadle.reports.views.LiveView`, or a function of a `Window` that returns a picture as `log_image`
        takes it.
        """
        return {}

    def scenes(self) -> Mapping[str, Any]:
        """Things in space as they are now, by name, as `log_scene` takes them; none by default.

        They are made with the `examples()`, in eval mode and with random streams of their own, where some hook hears
        scenes (`--log rerun`), and else never. Each is a `treadle.reports.scene.Scene` of arrays of its own.
        """
        return {}

    def report(self, directory: Path) -> dict[str, Any]:
        """Write what the run came to into `directory`, when it has finished; returns results to print, by name."""
        return {}

    def test_report(self, directory: Path, feed: Feed) -> dict[str, Any]:
        """Evaluate `feed`, write pictures and figures into `directory`, return the results by name.

        By default what `test` gives, and what `report` writes.
        """
        return {**self.test(feed), **self.report(directory)}

    @classmethod
    def exportable(cls, run: Path) -> dict[str, Any]:
        """The trained models of the run in a directory that can leave Treadle, by name; none by default.

        Each is a `treadle.export.onnx.Exportable`. One that also takes `at` lets `treadle export --at` say which model:
        see `treadle.runs.models.find_model`.
        """
        return {}

    @classmethod
    def exporters(cls) -> dict[str, Any]:
        """The formats of its own that `treadle export` can write runs in, by the option's name; none by default.

        Each is a `treadle.export.exporter.Exporter`.
        """
        return {}

    @classmethod
    def translators(cls, run: Path, *, at: int | str | None = None) -> dict[str, Any]:
        """What the run in a directory has learnt to make of pictures, by direction ("AtoB"); nothing by default.

        Each is a `treadle.gans.translator.Translator`, which `treadle translate` uses; `at` is that of `load_model`.
        """
        return {}

    @classmethod
    def load_model(cls, run: str | Path, *args: Any, **kwargs: Any) -> Any:
        """The trained model of the run in a directory, ready to be used without the trainer.

        Those of ours take `at`: the step of a model that is kept, "best" or "final"; None takes `preferred_model`.

        Raises UsageError where the trainer offers none, as by default.
        """
        raise UsageError(f"{cls.__name__} has no model to use by itself: override load_model")

    # What is called with these --------------------------------------------------------------------------------------

    @property
    def feeds(self) -> dict[str, Feed]:
        """The feeds there are, by attribute name."""
        feeds = {"feed": self.feed, "validation_feed": self.validation_feed, "test_feed": self.test_feed}
        return {name: feed for name, feed in feeds.items() if feed is not None}

    def validate(self) -> dict[str, float]:
        """Evaluate the validation data now; the trainer does."""
        raise NotImplementedError

    def test(self, data: Any = None) -> dict[str, float]:
        """Evaluate `data`, by default the test data; the trainer does."""
        raise NotImplementedError
