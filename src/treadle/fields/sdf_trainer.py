"""Learning the signed distance from the surface of a mesh."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from treadle.data.feed import Feed
from treadle.data.random import derive_seed
from treadle.engine.ema import EMA
from treadle.engine.events import Hook
from treadle.engine.lr import LearningRate
from treadle.engine.optim import parameter_groups
from treadle.engine.schedule import Span, every
from treadle.engine.settings import TrainerConfig
from treadle.engine.trainer import Trainer
from treadle.errors import UsageError
from treadle.export.mesh import write_mesh
from treadle.export.mesh_parts import moved
from treadle.fields.grids.octree import SparseGrid
from treadle.fields.offline import OfflineRenders
from treadle.fields.pipeline import Pipeline
from treadle.fields.rendering import render
from treadle.fields.sdf import losses, panels
from treadle.fields.sdf.exporters import sdf_exporters, surface
from treadle.fields.sdf.field import SDFField
from treadle.fields.sdf.judging import apart, figures, iou, normal_error
from treadle.fields.sdf.pool import Mixture, PoolFeed, Samples
from treadle.fields.sdf.settings import SDFConfig
from treadle.fields.sdf.shapes import knot
from treadle.fields.sdf.solid import Solid, enclose, read_solid
from treadle.fields.settings import build_decoder, build_grid
from treadle.fields.structures.octree import Octree
from treadle.fields.tracers.sphere import SphereTracer
from treadle.fields.warming import ask_once, compile_now
from treadle.images.display import write_png
from treadle.images.reading import Pixels
from treadle.kernels.adam import Adam
from treadle.kernels.fields_warmup import STAGES, prepare
from treadle.kernels.threads import left_to_kernels
from treadle.reports.growth import growth
from treadle.reports.report import write_report
from treadle.reports.rows import Row
from treadle.reports.scene import Scene
from treadle.runs.models import At, find_model

SCENE_RESOLUTION = 96
"""Voxels along each side of the box for the mesh that logging services are sent."""


class SDFTrainer(Trainer):
    """Fit a field to the signed distance from a mesh, and to the colours of its surface where it has some.

    Args:
        data: a `Solid`, or the path of a mesh (see `read_solid`); None takes a knot of our own.
        config, hooks, settings: as for every `Trainer`.

    Example:
        trainer = SDFTrainer(data="bunny.obj", max_steps=1000)
        trainer.train()
        trainer.model.evaluate(torch.zeros(1, 3))       # the distance of the origin from the surface
    """

    Config: ClassVar[type[TrainerConfig]] = SDFConfig
    transient: ClassVar[tuple[str, ...]] = ("solid", "pruning")

    def __init__(
        self,
        config: SDFConfig | None = None,
        *,
        data: Solid | str | Path | None = None,
        hooks: Sequence[Hook] = (),
        **settings: Any,
    ) -> None:
        self.solid = own_solid() if data is None else data if isinstance(data, Solid) else read_solid(data)
        super().__init__(config, hooks=hooks, **settings)

    @classmethod
    def load_data(cls, config: Any, path: Path | None) -> dict[str, Any]:
        """The solid that the mesh at `path` encloses, or a knot of our own."""
        if path is None:
            return {"data": own_solid()}
        solid = read_solid(path, config.texture)
        for note in solid.notes:
            warnings.warn(f"{path}: {note}", stacklevel=2)
        return {"data": solid}

    def setup(self) -> None:
        """Build the field, its optimizer, and the feeds of samples around the solid."""
        config = self.config
        self.feed = PoolFeed(self.solid, config.pool, config.batch_size, mixture=config.mixture, spread=config.spread,
                             epochs=config.pool_epochs)  # fmt: skip
        self.validation_feed = self.held_out("validation", config.validation_points)
        self.test_feed = self.held_out("test", config.test_points)
        self.model = self.build_field()
        self.on_settings()
        self.model.to_input.copy_(torch.from_numpy(self.solid.to_input))
        self.objective = config.objective(colored=self.model.colored)
        named: dict[str, dict[str, Any]] = {"*": {"name": "decoder"}}
        if any(True for _ in self.model.grid.parameters()):
            named = {"grid.*": {"name": "grid", "lr_scale": config.grid_rate}} | named
        groups = parameter_groups(self.model, named)
        # As in instant-ngp: the tiny eps lets rows with tiny gradients, met by few samples, move as far as the others.
        self.optimizer = Adam(groups, betas=(0.9, 0.99), eps=1e-15)
        self.rate = LearningRate(self.optimizer, config.learning_rate)
        if config.ema is not None:
            self.ema = EMA(self.model, config.ema, warm_up=True)
        if self.device.type == "cpu":
            compile_now(
                {
                    "grid and decoder": partial(ask_once, self.model, torch.zeros(2, 3)),
                    "rays": partial(prepare, stages=(STAGES[0], STAGES[3])),
                }
            )
        from treadle.hooks.examples import Examples

        self.add_hook_of("examples_every", lambda config: Examples.of(config.examples_every))
        render: Any = type(self).renders
        self.add_hook_of("render_every", lambda config: OfflineRenders.of(config.render_every, render))

    def held_out(self, name: str, count: int) -> PoolFeed:
        """Uniform points in the box, as one batch: so figures are those of all of them together."""
        seed = derive_seed(self.config.seed, name)
        return PoolFeed(self.solid, count, count, mixture=Mixture(1, 0, 0), epochs=2**31, seed=seed)

    def build_field(self) -> SDFField:
        """The field to train. Override it for one of your own with the channels "sdf" and, if it likes, "color"."""
        level = finest(self.config)
        cells = None
        if level is not None:
            cells = Octree.from_mesh(self.solid.vertices, self.solid.faces, level, dilation=1).cells
        return build_field(self.config, self.solid.paint is not None, cells)

    def on_settings(self) -> None:
        """Prune when the settings say so."""
        super().on_settings()
        self.pruning = every(self.config.prune_every)

    def pre_training(self) -> None:
        """Put what is to be known of the mesh into the journal."""
        super().pre_training()
        for note in self.solid.notes:
            self.note("data", said=note)

    @left_to_kernels()
    def step(self, batch: Samples) -> Mapping[str, Any]:
        """One update on the distances of a batch of samples, and on their colours."""
        lod = self.lod()
        found = self.model(batch.points, None, ("sdf", "color") if self.model.colored else ("sdf",), lod)
        terms = self.terms(found, batch, lod)
        result = self.objective(**terms)
        self.minimize(result, self.optimizer)
        finished = replace(self.progress, step=self.progress.step + 1)
        begun = self.config.prune_from is None or Span.parse(self.config.prune_from).reached(finished)
        if begun and self.pruning.due_after_step(finished):
            self.once(self.prune)
        return {"loss": result.total}

    def prune(self) -> None:
        """Take those cells of the octree away that are far from the surface; if no cell would be left, all stay."""
        grid = sparse_grid(self.model)
        reach = self.config.prune_beyond * 3**0.5 / 2**grid.finest
        keep = (self.model.evaluate(grid.centres()).abs() < reach).flatten().to(grid.codes.device)
        if bool(keep.any()) and not bool(keep.all()):
            rows = grid.prune(keep, self.edit_rows)
            self.note("prune", cells=int(keep.sum()), of=len(keep), rows_gone=rows)

    def terms(self, found: Mapping[str, Tensor], batch: Samples, lod: int | None) -> dict[str, Tensor]:
        """The values of the loss terms that this run has."""
        terms = {}
        for name in self.objective.terms:
            if name == "eikonal":
                terms[name] = self.eikonal(batch.points, lod)
            elif name == "color":
                terms[name] = losses.color(found["color"], batch.colors, batch.distances)
            else:
                terms[name] = losses.DISTANCE[name](found["sdf"], batch.distances)
        return terms

    def eikonal(self, points: Tensor, lod: int | None) -> Tensor:
        """How far the gradients at the first of a batch's points are from unit length.

        Where several processes or parts have the batch, for those of them that are among `points` (n, 3), weighted so
        that the mean of all parts by their points is that over the first points of the batch.
        """
        several, size = self.config.parts or self.loop.world.size, self.config.batch_size
        if several == 1:
            return losses.eikonal(
                self.model.gradients(points[: self.config.eikonal_points], self.config.eikonal_step, lod)
            )
        whole = min(size, self.config.pool - self.progress.batch * size)
        first = min(self.config.eikonal_points, whole)
        here = min(len(points), max(0, first - whole * self.batch_part // several))
        if not here:
            return points.new_zeros(())
        found = losses.eikonal(self.model.gradients(points[:here], self.config.eikonal_step, lod))
        return found * (here / first * whole / len(points))

    def lod(self) -> int | None:
        """The finest level of this step: all, or one drawn from (seed, step), the next finer one twice as often."""
        if not self.config.random_lod:
            return None
        levels = self.model.levels
        generator = torch.Generator().manual_seed(derive_seed(self.config.seed, "lod", self.progress.step))
        return int(torch.multinomial(2.0 ** torch.arange(levels), 1, generator=generator))

    # Evaluation -----------------------------------------------------------------------------------------------------

    @left_to_kernels()
    def validation_step(self, batch: Samples) -> Mapping[str, Any]:
        """IoU and errors of the distances on uniform points in the box, as one batch."""
        return figures(self.model.evaluate(batch.points).to(batch.distances.device), batch.distances)

    def examples(self) -> dict[str, Any]:
        """The surface as it is now, from the front."""
        size = min(self.config.picture, 256)
        seen = panels.see(self.model, panels.camera_at(panels.VIEWS["front"], size))
        return {"view": panels.shaded(seen)}

    def views(self) -> dict[str, Any]:
        """The surface from any camera, and slices of the distance."""
        from treadle.fields.sdf.live import SliceView, SurfaceView

        return {"surface": SurfaceView(self.model), "slices": SliceView(self.model, self.solid)}

    def scenes(self) -> dict[str, Any]:
        """The surface by marching cubes, coarser than `report` has it; nothing while there is none."""
        try:
            mesh = surface(self.model, min(self.config.resolution, SCENE_RESOLUTION))
        except UsageError:  # a field that has learnt nothing yet, or no scikit-image
            return {"surface": Scene()}
        return {"surface": Scene(vertices=mesh.vertices, faces=mesh.faces, vertex_colors=mesh.colors)}

    def renders(self) -> dict[str, dict[str, Any]]:
        """All channels of the surface, and where it is, from the front and from the back."""
        pipeline = Pipeline(self.model, SphereTracer())
        channels = [*self.model.channels, "normal"]
        return {
            name: render(pipeline, panels.camera_at(direction, self.config.picture), channels)
            for name, direction in panels.VIEWS.items()
        }

    def judged(self, directory: Path, seen: dict[str, list[Pixels]]) -> dict[str, Any]:
        """Judge the field on points and by its surface; writes pictures (of the views `seen`) and mesh."""
        config, model = self.config, self.model
        found: dict[str, Any] = {
            "iou": iou(model, self.solid, config.test_points, derive_seed(config.seed, "iou")),
            "normal_error": normal_error(model, self.solid, seed=derive_seed(config.seed, "normals")),
            "views": directory / "views.png",
            "slices": directory / "slices.png",
        }
        directory.mkdir(parents=True, exist_ok=True)
        write_png(found["views"], panels.together(seen))
        write_png(found["slices"], panels.slices(model, config.picture))
        try:
            mesh = surface(model, config.resolution)
        except UsageError as error:  # a field that has learnt nothing yet
            return found | {"shape": str(error)}
        between = apart(mesh.vertices, mesh.faces, self.solid, seed=derive_seed(config.seed, "surface"))
        found |= {
            "distance": between.relative,
            "farthest": between.largest / self.solid.diagonal,
            "shape": str(between.fit),
            "shape of the data": str(self.solid.topology),
            "mesh": directory / "mesh.ply",
        }
        write_mesh(found["mesh"], moved(mesh, self.solid.to_input))
        return found

    def report(self, directory: Path) -> dict[str, Any]:
        """Write pictures, the mesh and how it came to be into `directory`; returns figures and paths.

        "iou" is that of the insides on uniform points in the box, "distance" the mean exact distance between the two
        surfaces, both ways, as a share of the mesh's diagonal, "farthest" the largest, "normal_error" is in degrees.
        """
        with self.evaluating():
            found = self.judged(directory, panels.views(self.model, self.config.picture))
        found["parameters"] = sum(parameter.numel() for parameter in self.model.parameters())
        if self.run is not None:
            moving = growth(directory / "growth.gif", self.run.path / "examples")
            found |= {} if moving is None else {"growth": moving}
        return found

    def test_report(self, directory: Path, feed: Feed) -> dict[str, Any]:
        """Judge the field as `report` does; writes tables and a page of its views, and the mesh."""
        run = directory.parent
        with self.evaluating():
            seen = panels.views(self.model, self.config.picture)
            found = self.judged(directory, seen)
            figures = {name: value for name, value in found.items() if isinstance(value, float)}
            rows = (
                Row(name, dict(zip(panels.CAPTIONS, pictures, strict=False)), figures)
                for name, pictures in seen.items()
            )
            title = f"Test of {run.parent.name}/{run.name}"
            about = f"the distance from {self.solid.name} ({self.solid.topology}); the figures are of all of it"
            written = write_report(directory, rows, title=title, description=f"{self.shown_model}: {about}")
        return found | {name: written[name] for name in ("table", "page")}

    @classmethod
    def exporters(cls) -> dict[str, Any]:
        """The surface as a mesh."""
        return sdf_exporters(cls.load_model)

    @classmethod
    def load_model(cls, run: str | Path, *, at: At | None = None) -> SDFField:
        """The best model of a run, ready for inference: `load_model("runs/sdf/v001").evaluate(points)`.

        `at` names another: the step of one that is kept, or "final". Raises UsageError where the run has no such model,
        or none of an `SDFTrainer`.
        """
        found = find_model(run, at, cls.preferred_model)
        weights, config = found.of("model"), found.config(cls.Config)
        if "log_sharpness" not in weights:
            raise UsageError(f"{run} is not the run of a distance field: it has no sharpness")
        biases = [name for name in weights if name.startswith("decoder.") and name.endswith(".bias")]
        outputs = weights[max(biases, key=lambda name: int(name.split(".")[2]))].shape[0]
        model = build_field(config, outputs == 4, torch.zeros(1, 3, dtype=torch.int64))
        model.load_state_dict(weights)
        return model.eval()


def build_field(config: SDFConfig, colored: bool, cells: Tensor | None) -> SDFField:
    """The field that the settings describe, with colours or without; `cells` are those of a grid that has some."""
    grid = build_grid(config, cells=cells)
    return SDFField(grid, build_decoder(config, grid.width, 4 if colored else 1))


def finest(config: SDFConfig) -> int | None:
    """The finest level of the octree that the settings describe; None where they describe another grid."""
    arguments = config.grid_arguments()
    return arguments["base"] + arguments["levels"] - 1 if config.grid in ("octree", "codebook") else None


def sparse_grid(field: SDFField) -> SparseGrid:
    """The grid of cells in a field, under whatever it is wrapped in."""
    return next(module for module in field.modules() if isinstance(module, SparseGrid))


def own_solid() -> Solid:
    """What is trained on where no mesh is given."""
    return enclose(knot(), "the knot")
