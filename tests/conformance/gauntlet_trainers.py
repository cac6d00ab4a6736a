"""What the gauntlet trains: the examples, made small, and two trainers that hold everything that can go wrong."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gauntlet_kinds import SHORT, channels_last, lbfgs, ranked, sparse
from gauntlet_pictures import label_maps, rectangles, unpaired_floats
from gauntlet_state import late_groups, lazy_modules, stream_validation
from PIL import Image
from torch import nn

from treadle import EMA, DatasetFeed, Hook, LearningRate, Objective, Order, Steps, StreamFeed, TensorFeed, Trainer
from treadle.engine.events import EVENTS
from treadle.hooks import KeptModels
from treadle.recipes.registry import Recipe, list_recipes, load_recipe

EXAMPLES = Path(__file__).parents[2] / "examples"

TRANSLATION = [
    *("max_steps=11", "device=cpu", "precision=fp32", "batch_size=2", "size=16", "load_size=20", "rotate=true"),
    *("features=4", "downs=2", "d_features=4", "patch=16", "diffaugment=color,translation,cutout"),
    *("ema=0.9", "validate_every=5 steps", "examples=1", "examples_every=4 steps"),
]
LINES = {
    "max_steps": 23,
    "device": "cpu",
    "batch_size": 12,
    "sizes": [8],
    "dropout": 0.2,
    "ends": True,
    "split": 0.5,
    "reverse": 0.5,
    "noise": 0.4,
    "noise_targets": 0.1,
    "pull": 1.0,
    "rotate": True,
    "subjects_per_batch": 1,
    "clip_norm": 1.0,
    "validate_every": "3 steps",
    "generate_every": "6 steps",
    "generate_lines": 4,
    "examples_every": "7 steps",
    "track_seeds": 0,
    "track_shortest": 0.0,
}
"""A training on streamlines, with everything that is done to them; it ends in the middle of an epoch."""
RECIPES = {
    "image": [
        "max_steps=12",
        "device=cpu",
        "batch_size=256",
        "log2_size=8",
        "decoder_rate=1.0",
        "validate_every=5 steps",
    ],
    "pix2pix": [
        *(*TRANSLATION, "norm=batch", "pool=3", "jitter=0.3", "noise=0.1", "objective=extended+r1", "penalty_every=2"),
        *("weights.G_L1=linear 100 to 10", "d_learning_rate=1e-3", "d_turns=2", "g_turns=3"),
    ],
    "cyclegan": [*TRANSLATION, "pool=10", "blocks=1", "spectral=true", "weights.G_IDENTITY_A=linear 5 to 0 over 50%"],
    "colorization": [*TRANSLATION, "elastic=2", "chances.elastic=0.5", "cutout=2", "vertical_flip=0.5"],
    "splats": [
        *("max_steps=24", "device=cpu", "coarse=4", "random=60", "cap=90", "degree_every=3 steps"),
        *("grow_every=4 steps", "grow_from=2 steps", "pose_rate=1e-3", "exposure_rate=1e-2", "weights.needles=0.1"),
        *("validate_every=5 steps", "examples_every=6 steps", "turntable=0"),
    ],
    "sdf": [
        *("max_steps=24", "device=cpu", "batch_size=64", "pool=500", "pool_epochs=1", "grid=octree", "levels=2"),
        *(
            "features=2",
            "base=4",
            "learning_rate=5e-2",
            "hidden=8",
            "prune_every=7 steps",
            "random_lod=true",
            "ema=0.9",
            "weights.eikonal=0.01",
        ),
        *("eikonal_points=16", "validation_points=200", "test_points=200", "resolution=12", "picture=16"),
        *("validate_every=5 steps", "examples_every=6 steps", "render_every=10 steps"),
    ],
    "nerf": [
        *("max_steps=24", "device=cpu", "grid=octree", "levels=2", "features=2", "base=3", "hidden=8", "occupancy=16"),
        *(
            "steps=16",
            "prune_below=1",
            "learning_rate=0.1",
            "prune_every=4 steps",
            "prune_after=8",
            "shrink_every=9 steps",
            "random_lod=true",
            "samples=600",
        ),
        *("first_rays=20", "batch_size=200", "exposure_rate=1e-2", "pose_rate=1e-3", "weights.distortion=1e-3"),
        *("weights.opacity=1e-2", "validate_every=5 steps", "examples_every=6 steps", "turntable=0"),
    ],
    "tracts": [*(f"{name}={value}" for name, value in LINES.items()), "lazy=true", "cache_mb=0"],
    "tracts-autoencoder": [
        *("max_steps=20", "device=cpu", "points=64", "latent=4", "channels=2", "batch_size=12", "noise=0.1"),
        *("validate_every=3 steps", "lazy=true"),
    ],
}
"""Overrides that make a shipped recipe small, with all that has state; one that is missing is found by a test."""


def example(name: str) -> Any:
    """The module of an example, by path, without what it prints."""
    module = sys.modules.get(f"example_{Path(name).name}")
    if module is None:
        spec = importlib.util.spec_from_file_location(f"example_{Path(name).name}", EXAMPLES / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        with contextlib.redirect_stdout(io.StringIO()):
            spec.loader.exec_module(module)
    return module


def line(workers: int, **where: Any) -> Trainer:
    x = torch.linspace(-1, 1, 256)[:, None]
    return example("line").Line(data=(x, 3 * x + 1), batch_size=32, max_epochs=3, **SHORT, **where)


class Unruly(Hook):
    """An observer that in each process does something else: draws, edits, sets, leaves, keeps what nobody can save."""

    observer = True
    order = Order.FIRST

    def act(self, *given: Any) -> None:
        torch.manual_seed(os.getpid()), np.random.seed(os.getpid()), random.seed(os.getpid())
        torch.set_grad_enabled(False), torch.set_default_dtype(torch.float64), torch.set_num_threads(2)
        for thing in given:
            if isinstance(thing, dict):
                thing.update({name: float(os.getpid()) for name in thing})
            for tensor in thing if isinstance(thing, tuple) else ():
                tensor.fill_(os.getpid())
        if os.urandom(1)[0] < 20:
            raise SystemExit("enough")

    def state_dict(self) -> Any:
        return {"process": os.getpid() if os.getpid() % 2 else object()}

    def load_state_dict(self, state: Any) -> None:
        raise GeneratorExit


for _event in EVENTS:
    setattr(Unruly, _event, lambda self, trainer, *given: self.act(*given))


def observed(workers: int, **where: Any) -> Trainer:
    x = torch.linspace(-1, 1, 256)[:, None]
    data = x, 3 * x + 1
    kind = type(
        "Observed", (example("line").Line,), {"validation_step": lambda self, batch: self.model(batch[0]).mean()}
    )
    return kind(data=data, validation_data=data, batch_size=32, max_epochs=3, hooks=[Unruly()], **SHORT, **where)


def gan_2d(workers: int, **where: Any) -> Trainer:
    ring = example("gan_2d")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        data = ring.CENTRES[torch.randint(ring.MODES, (600,))] + ring.SIGMA * torch.randn(600, 2)
    return ring.RingGAN(data=data, batch_size=128, max_steps=22, **SHORT, **where)


def growing_gaussians(workers: int, **where: Any) -> Trainer:
    module = example("growing_gaussians")
    picture, places = module.sunset(32)
    data = (places.flatten(0, 1), picture.flatten(0, 1))
    return module.Cloud(data=data, batch_size=700, max_epochs=24, **SHORT | {"save_every": "5 steps"}, **where)


def ragged_sequences(workers: int, **where: Any) -> Trainer:
    module = example("ragged_sequences")
    feeds = [module.feed(module.curves(count, seed=count), shuffle=count == 300) for count in (300, 60)]
    feeds[0].workers = workers
    return module.NextStep(
        data=feeds[0], validation_data=feeds[1], max_epochs=3, **SHORT, validate_every="4 steps", **where
    )


class Noisy:
    """Samples that are drawn anew every time; one of them is poison."""

    def __init__(self, count: int, poison: int | None = None) -> None:
        self.count, self.poison = count, poison

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        x = np.array([index / self.count, random.random(), *np.random.randn(2)], dtype=np.float32)
        bad = index == self.poison and random.random() < 0.7
        return {"x": x + torch.rand(4).numpy(), "y": np.float32("nan") if bad else np.float32(np.sin(index))}


class Everything(Trainer):
    """Dropout, batch statistics, an average, accumulation, clipping, rows that come and go, bad steps, three RNGs."""

    def setup(self) -> None:
        self.model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 1))
        self.rows = nn.Parameter(torch.randn(6, 1))
        self.use = torch.zeros(6)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.row_optimizer = torch.optim.SGD([self.rows], lr=0.05, momentum=0.9)
        self.rate = LearningRate(self.optimizer, "warm-up 5 steps then cosine 1e-2 to 1e-4")
        self.average = EMA(self.model, decay=0.9)
        self.objective = Objective()
        self.objective.add("fit", weight="linear 1 to 0.5")
        self.objective.add("rows", weight=0.1)
        self.own_rng = np.random.default_rng(5)
        self.history: list[Any] = []
        self.add_hook(KeptModels(2, ("model",)))

    def step(self, batch: Any) -> Any:
        out = self.model(batch["x"]).squeeze(1) + random.random() + float(np.random.rand())
        fit = (out - batch["y"]).square().mean()
        losses = self.objective(fit=fit, rows=(self.rows.square().mean() - float(self.own_rng.random())) ** 2)
        self.use += torch.rand(len(self.use))
        self.history.append((self.progress.step, fit.item()))
        self.minimize(losses, [self.optimizer, self.row_optimizer])
        return {"loss": losses.total}

    def post_step(self, batch: Any, outputs: Any) -> None:
        if self.progress.step % 4 == 0:
            with self.edit_rows({"rows": self.rows, "use": self.use}) as edit:
                edit.keep(self.use < self.use.max())
                count = random.randint(1, 3)
                edit.append({"rows": torch.randn(count, 1), "use": torch.zeros(count)})

    def validation_step(self, batch: Any) -> Any:
        return {"loss": (self.model(batch["x"]).squeeze(1) - batch["y"]).square().mean()}


def everything(workers: int, **where: Any) -> Trainer:
    feed = DatasetFeed(Noisy(50, poison=17), 6, workers=workers)
    return Everything(
        data=feed,
        validation_data=DatasetFeed(Noisy(20), 8, shuffle=False),
        max_epochs=3,
        accumulate=2,
        clip_norm=1.0,
        patience=50,
        on_bad_step="rollback",
        validate_every="5 steps",
        snapshot_every="2 steps",
        **SHORT,
        **where,
    )


def squares(epoch: int) -> Iterator[torch.Tensor]:
    """A stream, another one in every epoch."""
    generator = torch.Generator().manual_seed(epoch)
    for _ in range(20):
        yield torch.rand(3, generator=generator)


class Average(Trainer):
    """Follows the mean of a stream with dropout noise."""

    def setup(self) -> None:
        self.mean = nn.Parameter(torch.zeros(3))
        self.optimizer = torch.optim.RMSprop([self.mean], lr=0.1)

    def step(self, batch: Any) -> Any:
        loss = nn.functional.dropout(batch - self.mean, 0.2).square().mean()
        self.minimize(loss)
        return {"loss": loss}


def stream(workers: int, **where: Any) -> Trainer:
    return Average(data=StreamFeed(squares, 3), max_epochs=4, **SHORT, **where)


class Spring:
    """A small world: it moves, and remembers where it is."""

    def __init__(self) -> None:
        self.place, self.speed = 1.0, 0.0

    def push(self, force: float) -> float:
        self.speed = 0.9 * self.speed + 0.1 * (force - self.place)
        self.place += 0.5 * self.speed
        return self.place

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place, "speed": self.speed}

    def load_state_dict(self, state: Any) -> None:
        self.place, self.speed = state["place"], state["speed"]


class Farthest:
    """A metric object: the largest error of a whole set."""

    def __init__(self) -> None:
        self.most = 0.0

    def update(self, errors: torch.Tensor) -> None:
        self.most = max(self.most, float(errors.abs().max()))

    def compute(self) -> float:
        return self.most

    def reset(self) -> None:
        self.most = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"most": self.most}

    def load_state_dict(self, state: Any) -> None:
        self.most = state["most"]


class OwnData(Trainer):
    """Makes its own data in a world with a memory, and keeps some of it; it is validated on several sets."""

    def setup(self) -> None:
        self.world = Spring()
        self.model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.02)
        self.rate = LearningRate(self.optimizer, f"linear 2e-2 to 1e-3 over {self.progress.total_steps} steps")
        self.kept: list[list[float]] = []
        self.farthest = Farthest()

    def step(self, number: int) -> Any:
        for _ in range(3):
            force, before = random.gauss(0, 1), self.world.place
            self.kept.append([before, force, self.world.push(force)])
        self.kept = self.kept[-20:]
        rows = torch.tensor([self.kept[index] for index in np.random.randint(0, len(self.kept), 4)])
        loss = (self.model(rows[:, :2])[:, 0] - rows[:, 2]).square().mean()
        self.minimize(loss)
        return {"loss": loss, "number": float(number)}

    def validation_step(self, batch: Any) -> Any:
        errors = self.model(batch[:, :2])[:, 0] - batch[:, 2]
        self.farthest.update(errors)
        return {"loss": errors.square().mean(), "farthest": self.farthest}


def own_data(workers: int, **where: Any) -> Trainer:
    near = torch.linspace(-1, 1, 30).reshape(10, 3)
    return OwnData(
        data=Steps(8),
        validation_data={"near": TensorFeed(near, 4, shuffle=False), "far": StreamFeed(squares, 3)},
        limit_batches=6,
        limit_validation_batches=2,
        max_epochs=4,
        validate_every="0.5 epochs",
        monitor="far/farthest",
        patience=2,
        min_steps=20,
        accumulate=4,
        **SHORT,
        **where,
    )


def splats_adc(workers: int, **where: Any) -> Trainer:
    from treadle.cameras.procedural import procedural_capture
    from treadle.splats.trainer import SplatsTrainer

    return SplatsTrainer(
        data=procedural_capture(24, train=9, test=3),
        device="cpu",
        max_steps=24,
        strategy="adc",
        random=60,
        cap=200,
        pull=1e-6,
        grow_every="4 steps",
        grow_from="2 steps",
        grow_until="20 steps",
        reset_every="9 steps",
        weights={"depth": 0.1, "normals": 0.05},
        background="white",
        validate_every="7 steps",
        examples_every=None,
        turntable=0,
        **SHORT,
        **where,
    )


def own_densification(workers: int, **where: Any) -> Trainer:
    from treadle.cameras.procedural import procedural_capture

    settings = {
        "max_steps": 20,
        "random": 40,
        "strategy": "none",
        "examples_every": None,
        "turntable": 0,
        "device": "cpu",
    }
    return example("own_densification").Busiest(data=procedural_capture(16, 6, 2), **settings, **SHORT, **where)


def own_field(workers: int, **where: Any) -> Trainer:
    from treadle.cameras.procedural import procedural_capture
    from treadle.data.views import ViewFeed

    views = procedural_capture(10, train=4, test=0).train
    return example("own_field").BallsTrainer(data=ViewFeed(views), max_steps=26, device="cpu", **SHORT, **where)


def tracts_memory(workers: int, **where: Any) -> Trainer:
    from treadle.tracts.trainer import TractsTrainer

    chosen = {"getter": "gaussian", "monitor": "connectivity", "monitor_mode": "max", "optimizer": "radam"}
    return TractsTrainer(data=heads(), workers=workers, **LINES, **chosen, **SHORT, **where)


def char_gpt(workers: int, **where: Any) -> Trainer:
    module = example("ports/char_gpt")
    learned, held_out = module.windows(module.LICENCE.read_text())
    settings = {"batch_size": 8, "max_steps": 20, "clip_norm": 1.0, "validate_every": "6 steps", **SHORT}
    return module.CharGPT(data=learned[:100], validation_data=held_out[:3], **settings, **where)


def ppo(workers: int, **where: Any) -> Trainer:
    module = example("ports/ppo")
    moves = torch.arange(module.GAMES * module.HORIZON)
    return module.PPO(data=moves, batch_size=300, max_epochs=6, clip_norm=0.5, **SHORT, **where)


def byol(workers: int, **where: Any) -> Trainer:
    module = example("ports/byol")
    data, held_out = module.pictures(40, 1), module.pictures(20, 2)
    settings = {"batch_size": 12, "max_epochs": 4, "validate_every": "5 steps", "monitor": "accuracy", **SHORT}
    return module.BYOL(data=data, validation_data=held_out, device="cpu", **settings, **where)


def word_lstm(workers: int, **where: Any) -> Trainer:
    module = example("ports/word_lstm")
    (data, _), (held_out, _) = module.text(1600, 1), module.text(800, 2)
    settings = {"batch_size": module.WINDOW, "shuffle": False, "clip_norm": 0.25, "max_epochs": 4, **SHORT}
    return module.WordLSTM(data=data, validation_data=held_out, validate_every="3 steps", **settings, **where)


BUILDERS: dict[str, Callable[..., Trainer]] = {
    builder.__name__: builder
    for builder in (
        *(
            line,
            observed,
            gan_2d,
            growing_gaussians,
            ragged_sequences,
            everything,
            stream,
            own_data,
            splats_adc,
            own_densification,
            own_field,
            tracts_memory,
            char_gpt,
            ppo,
            byol,
            word_lstm,
            late_groups,
            lazy_modules,
            stream_validation,
            channels_last,
            sparse,
            lbfgs,
            ranked,
            label_maps,
            rectangles,
            unpaired_floats,
        ),
    )
}


def plain_loop(run: Path) -> None:
    example("plain_loop").main(run, epochs=3, save_every="3 steps")


LOOPS: dict[str, Callable[[Path], None]] = {"plain_loop": plain_loop}
"""Programs without a trainer: each trains to its end, from where it was, with its checkpoints in a directory."""
MAP_STYLE = (
    *("ragged_sequences", "everything", "pix2pix", "cyclegan", "colorization", "rectangles", "unpaired_floats"),
    *("tracts", "tracts_memory", "tracts-autoencoder"),
)
"""Those whose data may come from worker processes."""


def recipes() -> list[str]:
    """The recipes that come with Treadle, one for each trainer: those named after theirs. Others differ in settings."""
    return [row.name for row in list_recipes() if row.origin == "treadle" and load_recipe(row.name).trainer == row.name]


def build(name: str, workers: int = 0, **where: Any) -> Trainer:
    """The trainer of that name; `where` is run_dir and resume. The data of a recipe is written beside the run."""
    if name in BUILDERS:
        return BUILDERS[name](workers, **where)
    return small_recipe(name, Path(where["run_dir"]).parent, workers).build(**where)


def small_recipe(name: str, folder: Path, workers: int = 0) -> Recipe:
    """A recipe that comes with Treadle, with small settings and data, which are written into `folder`."""
    ending = ".ply" if name == "sdf" else ".h5" if name.startswith("tracts") else ""
    data = folder / f"{name}-data{ending}"
    if not data.exists():
        aside = data.with_name(f".{data.name}")  # a kill may come while it is written
        shutil.rmtree(aside, ignore_errors=True)
        write_pictures(name, aside)
        aside.rename(data)
    settings = [*RECIPES[name], *(f"{key}={value}" for key, value in (SHORT | {"workers": workers}).items())]
    return replace(load_recipe(name), data=data).with_overrides(settings)


def write_pictures(name: str, data: Path) -> None:
    """What a recipe trains on: a picture, or folders of them (7 to train on, so every fourth batch is a single one)."""
    if name.startswith("tracts"):
        from treadle.tracts.prepared_writer import write_prepared

        write_prepared(data, heads())
        return
    if name in ("splats", "nerf"):
        write_scene(data)
        return
    if name == "sdf":
        from treadle.export.mesh import Mesh, write_mesh
        from treadle.fields.sdf.shapes import knot

        surface = knot(24, 6)
        write_mesh(data, Mesh(surface.vertices.astype(np.float32), surface.faces.astype(np.int32)))
        return
    if name == "image":
        Image.fromarray((np.indices((32, 32)).sum(0) * 4).astype(np.uint8)).save(data, format="png")
        return
    rng, width = np.random.default_rng(1), 48 if name == "pix2pix" else 24
    for split in ("train", "val") if name in ("pix2pix", "colorization") else ("trainA", "trainB", "valA", "valB"):
        (data / split).mkdir(parents=True)
        for index in range(7 if split.startswith("train") else 3):
            pixels = rng.integers(0, 256, (3, 3, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((width, 24)).save(data / split / f"{index}.jpg")


def heads() -> Any:
    """Two subjects to train on and one to validate on: lines that turn, and a volume of tensors that says nothing."""
    from treadle.tracts.space import Space
    from treadle.tracts.streamlines import Streamlines
    from treadle.tracts.subject import MemorySubject, TractData

    made = []
    for number, count in enumerate((40, 30, 9)):
        rng = np.random.default_rng(number)
        t = np.linspace(0, 4, 9)[:, None]
        lines = [rng.uniform(2, 4, 3) + t * rng.uniform(0.5, 1, 3) + 0.1 * t**2 for _ in range(count)]
        volume = rng.normal(size=(10, 10, 10, 6)).astype(np.float32)
        space = Space(np.diag([2.0, 2.0, 2.0, 1.0]), (10, 10, 10))
        made.append(MemorySubject(f"head-{number}", space, {"input": (volume, "tensor")}, {"f": Streamlines.of(lines)}))
    return TractData(tuple(made[:2]), (made[2],))


def write_scene(data: Path) -> None:
    """The product's own scene, small, as a folder of Blender's."""
    from treadle.cameras.procedural import procedural_capture

    capture = procedural_capture(24, train=9, test=3)
    for split, views in (("train", capture.train), ("test", capture.test)):
        (data / split).mkdir(parents=True)
        frames = []
        for index, camera in enumerate(views.cameras):
            Image.fromarray(views[index].pixels).save(data / split / f"{index}.png")
            pose = camera.camera_to_world @ np.diag([1.0, -1.0, -1.0, 1.0])  # OpenGL's axes
            frames.append({"file_path": f"./{split}/{index}", "transform_matrix": pose.tolist()})
        angle = 2 * float(np.arctan(camera.width / (2 * camera.fx)))
        (data / f"transforms_{split}.json").write_text(json.dumps({"camera_angle_x": angle, "frames": frames}))
