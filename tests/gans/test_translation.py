"""What pix2pix and CycleGAN share: settings, turns, learning rates, averages, precisions, shapes of pictures."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from treadle import Hook
from treadle.engine.settings import StartSettings, TrainerConfig
from treadle.engine.terms import Term
from treadle.errors import UsageError
from treadle.gans import translation
from treadle.gans.cyclegan import CycleGANConfig, CycleGANTrainer
from treadle.gans.facades import facades
from treadle.gans.pix2pix import Pix2PixConfig, Pix2PixTrainer
from treadle.gans.specs import build_objective, register_spec

BOTH = [Pix2PixTrainer, CycleGANTrainer]
NETWORKS = {
    Pix2PixTrainer: (["generator"], ["discriminator"]),
    CycleGANTrainer: (["generator_ab", "generator_ba"], ["discriminator_a", "discriminator_b"]),
}
SMALL = {
    "device": "cpu",
    "precision": "fp32",
    "size": 16,
    "features": 4,
    "downs": 2,
    "blocks": 1,
    "d_features": 4,
    "patch": 16,
    "log_every": "1 step",
}


def pictures(count=5, channels=(3, 3), size=(16, 16), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(count, each, *size, generator=generator) * 2 - 1 for each in channels)


def trainer_of(kind, data=None, **settings):
    return kind(data=pictures() if data is None else data, **SMALL | {"max_steps": 3} | settings)


def networks(trainer):
    """Generators and discriminators."""
    return [[getattr(trainer, name) for name in names] for names in NETWORKS[type(trainer)]]


def weights(modules):
    return [p.detach().clone() for module in modules for p in module.parameters()]


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


class Gradients(Hook):
    """Notes, at each update, which of the four or two networks have gradients."""

    def __init__(self):
        self.seen = set()

    def pre_update(self, trainer, optimizer):
        has = tuple(any(p.grad is not None for m in side for p in m.parameters()) for side in networks(trainer))
        self.seen.add(("g" if optimizer is trainer.g_optimizer else "d", *has))


@pytest.mark.parametrize("kind", BOTH)
def test_an_update_gives_the_opponent_no_gradients(kind):
    hook = Gradients()
    trainer_of(kind, hooks=[hook]).train()
    assert hook.seen == {("g", True, False), ("d", False, True)}


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("turns", [(1, 1), (5, 1), (1, 2), (2, 3)])
def test_of_so_many_batches_each_learns_from_the_first(kind, turns):
    trainer = trainer_of(kind, d_turns=turns[0], g_turns=turns[1], max_steps=7, batch_size=2, ema=None)
    for step in range(7):
        before = [weights(side) for side in networks(trainer)]
        trainer.iterate()
        g_moved, d_moved = (not equal(old, weights(side)) for old, side in zip(before, networks(trainer), strict=True))
        assert (d_moved, g_moved) == tuple(step % max(turns) < turn for turn in turns)
    expected = {each: sum(step % max(turns) < each for step in range(7)) for each in turns}
    assert trainer.updates(trainer.d_optimizer) == expected[turns[0]]
    assert trainer.updates(trainer.g_optimizer) == expected[turns[1]]


@pytest.mark.parametrize("kind", BOTH)
def test_a_discriminator_of_single_pixels_can_be_played_with(kind):
    trainer = trainer_of(kind, patch=1, size=8, data=pictures(size=(8, 8)))
    (_, discriminators), x = networks(trainer), torch.zeros(2, 6 if kind is Pix2PixTrainer else 3, 8, 8)
    assert all(discriminator(x).shape == (2, 1, 8, 8) for discriminator in discriminators)
    trainer.train()
    assert trainer.status == "finished"


def rates(trainer):
    return [optimizer.param_groups[0]["lr"] for optimizer in (trainer.g_optimizer, trainer.d_optimizer)]


@pytest.mark.parametrize(
    ("kind", "d_rate", "at_6"),
    [
        (Pix2PixTrainer, None, 1.6e-4),
        (Pix2PixTrainer, 1e-3, 1e-3),
        (CycleGANTrainer, "linear 1e-3 to 0", 4e-4),
    ],
)
def test_the_rates_are_shared_or_apart_and_right_after_a_resume_in_mid_decay(kind, d_rate, at_6, tmp_path):
    settings = {"d_learning_rate": d_rate, "max_steps": 10}
    with trainer_of(kind, run_dir=tmp_path / "run", **settings) as stopped:
        for _ in range(6):
            stopped.iterate()
        stopped.save()
    resumed = trainer_of(kind, run_dir=tmp_path / "run" / "v001", resume=True, **settings)
    assert resumed.progress.step == 6
    resumed.iterate()
    assert rates(resumed) == pytest.approx([1.6e-4, at_6])
    assert [(group["betas"]) for group in resumed.g_optimizer.param_groups] == [(0.5, 0.999)]


@pytest.mark.parametrize("kind", BOTH)
def test_a_weights_curve_is_what_is_applied_and_logged(kind):
    name = {Pix2PixTrainer: "G_L1", CycleGANTrainer: "G_CYCLE_B"}[kind]
    trainer = trainer_of(kind, weights={name: "linear 100 to 0", "G_GAN" + "_AB" * ("B" in name): 3}, max_steps=4)
    trainer.train()
    assert [entry.weight for entry in trainer.objective.history[name]] == [100, 75, 50, 25]
    assert trainer.metrics[f"{name}.weight"] == 25


@pytest.mark.parametrize(("kind", "ema"), [(Pix2PixTrainer, 0.5), (Pix2PixTrainer, None), (CycleGANTrainer, 0.5)])
def test_the_average_is_what_is_validated_and_kept(kind, ema, tmp_path):
    held_out = pictures(3, seed=1)
    settings = {"ema": ema, "learning_rate": "1e-2", "max_steps": 6, "validate_every": "6 steps", "dropout": 0.0}
    trainer = trainer_of(kind, validation_data=held_out, run_dir=tmp_path / "run", batch_size=2, **settings)
    trainer.train()
    kept = load_file(tmp_path / "run" / "v001" / "best_model" / "weights.safetensors")
    for name in NETWORKS[kind][0]:
        average = {"generator": "average"}.get(name, name.replace("generator", "average"))
        raw = getattr(trainer, name).state_dict()
        assert (getattr(trainer, average) is None) == (ema is None)
        same = [torch.equal(kept[f"{name}.{key}"], value) for key, value in raw.items()]
        assert all(same) if ema is None else not any(same)
        if ema is not None:
            with getattr(trainer, average).applied():
                averaged = getattr(trainer, name).state_dict()
                assert all(torch.equal(kept[f"{name}.{key}"], value) for key, value in averaged.items())
    best = json.loads((tmp_path / "run" / "v001" / "best_model" / "metrics.json").read_text())
    assert best["monitor"] == trainer.config.monitor and best["value"] == trainer.validation_metrics[best["monitor"]]


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_it_learns_in_every_precision_and_is_judged_in_full(kind, precision):
    trainer = trainer_of(kind, precision=precision, validation_data=pictures(2), batch_size=3, pool=2)
    dtypes = set()
    for generator in networks(trainer)[0]:
        generator.register_forward_hook(lambda module, inputs, out: dtypes.add((module.training, out.dtype)))
    trainer.train()
    made_in = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert dtypes == {(True, made_in), (False, torch.float32)}
    scalers = {id(updater.scaler) for updater in trainer.minimizer.updaters.values()}
    assert len(scalers - {id(None)}) == (2 if precision == "fp16" else 0)
    assert all(p.isfinite().all() and p.dtype == torch.float32 for side in networks(trainer) for p in weights(side))
    assert all(np.isfinite(list(trainer.validation_metrics.values())))


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    ("channels", "batch_size", "size"), [((1, 3), 1, (16, 32)), ((3, 1), 3, (32, 16)), ((4, 3), 3, (16, 16))]
)
def test_pictures_of_any_channels_and_shape_in_ragged_batches(kind, channels, batch_size, size):
    settings = {"in_channels": channels[0], "out_channels": channels[1], "batch_size": batch_size}
    if kind is CycleGANTrainer:
        settings["weights"] = {"G_IDENTITY_A": 0, "G_IDENTITY_B": 0}
    held_out = pictures(2, channels, size)
    trainer = trainer_of(kind, pictures(5, channels, size), validation_data=held_out, max_epochs=1, **settings)
    trainer.train()
    assert trainer.progress.step == min(3, -(-5 // batch_size))
    assert all(panel.dtype == np.uint8 for panel in trainer.examples().values())


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_without_data_there_are_house_fronts_in_the_direction_and_channels_asked_for(kind, direction, monkeypatch):
    monkeypatch.setattr(translation, "PACKAGED", {"train": 4, "val": 2, "test": 2})
    config = kind.Config(size=32, patch=16, direction=direction, in_channels=1, out_channels=4)
    data = kind.load_data(config, None)
    assert set(data) == {"data", "validation_data", "test_data"}
    x, y = data["validation_data"][0]
    assert (x.shape, y.shape) == ((1, 32, 32), (4, 32, 32))
    assert y[3].eq(1).all()
    labels, fronts = facades(translation.derive_seed(0, "val"), 2, 32)
    target = fronts if direction == "AtoB" else labels
    assert torch.equal(((y[:3] + 1) * 127.5).round().to(torch.uint8), torch.from_numpy(target[0]).permute(2, 0, 1))


def test_unpaired_house_fronts_are_of_different_houses(monkeypatch):
    monkeypatch.setattr(translation, "PACKAGED", {"train": 4, "val": 1, "test": 1})
    data = CycleGANTrainer.load_data(CycleGANConfig(size=32, patch=16), None)
    houses = facades(translation.derive_seed(0, "train"), 4, 32)
    source = data["data"].source
    assert len(data["data"]) == 2
    assert np.array_equal(source.a.picture(0), houses[0][0]) and np.array_equal(source.b.picture(0), houses[1][2])


BAD = {
    "size": 7,
    "load_size": 8,
    "preprocess": "squash",
    "flip": 1.5,
    "rotate": "yes",
    "in_channels": 0,
    "out_channels": 0,
    "in_dtype": "int8",
    "out_dtype": 16,
    "in_range": [1, 1],
    "out_range": 255,
    "on_bad": "ignore",
    "cache_mb": -1,
    "generator": "unett",
    "features": 0,
    "downs": -1,
    "blocks": -1,
    "residual": 1,
    "upsampling": "nearest",
    "padding": "wrap",
    "rectify_skips": 1,
    "norm": "layer",
    "dropout": 1.0,
    "d_features": 0,
    "patch": 71,
    "spectral": None,
    "gan": "lsgn",
    "weights": {"G_L1": None},
    "learning_rate": "cosinus 1",
    "d_learning_rate": "",
    "beta1": 1.0,
    "beta2": -0.1,
    "d_turns": 0,
    "g_turns": 0,
    "diffaugment": "colour",
    "ema": 1.0,
    "lpips_weights": 3,
    "fid_weights": "",
    "examples": -1,
    "examples_every": "often",
    "keep_generators": -1,
    "batch_size": 0,
    "precision": "fp8",
    "direction": "AtoC",
    "pool": -1,
    "monitor_mode": "max",
    "spec": "pix3pix",
    "objective": "basics",
}
BAD |= {
    "max_samples": 0,
    "penalty_every": 0,
    "vertical_flip": 1.5,
    "elastic": -1.0,
    "elastic_sigma": 0.0,
    "distortion": 2.0,
    "chances": {"elastic": 0.5},  # which is off
}
OF_PIX2PIX = {
    "classes": -1,
    "gamma": 1.2,
    "gray": -0.1,
    "motion_blur": (3.0, 1.0),
    "jpeg": 101.0,
    "cutout": -2.0,
    "cutout_size": (0.2, 1.5),
    "cutout_both": 1,
    "jitter": -1,
    "noise": 2.0,
    "blur": float("nan"),
    "label_input": 1,
    "vgg_weights": 1,
}


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        *((kind, name, value) for kind in BOTH for name, value in BAD.items()),
        *((Pix2PixTrainer, name, value) for name, value in OF_PIX2PIX.items()),
        (Pix2PixTrainer, "size", 20),  # with downs=3 below
        (Pix2PixTrainer, "downs", 1),
        (Pix2PixTrainer, "learning_rate", float("nan")),
    ],
)
def test_a_bad_setting_is_refused_in_one_line_that_names_it(kind, name, value):
    with pytest.raises(UsageError) as caught:
        trainer_of(kind, **{"downs": 3 if name == "size" else 2, name: value})
    assert name in str(caught.value).lower()
    assert "\n" not in str(caught.value)


def test_what_nectargans_configs_ask_for_can_be_said():
    """Its augmentations of both pictures and of the input, each with a chance and a range (Albumentations')."""
    said = {
        "flip": 0.5, "vertical_flip": 0.5, "rotate": True, "elastic": 0.163 * 120 / 9, "elastic_sigma": 9.0,
        "distortion": (-0.05, 0.05), "cutout": (1.0, 2.0), "cutout_size": (0.1, 0.2), "cutout_both": True,
        "jitter": (0.8, 1.2), "noise": (0.2, 0.44), "motion_blur": (3.0, 7.0), "gamma": (0.8, 1.2), "gray": 0.1,
        "jpeg": (50.0, 80.0), "chances": dict.fromkeys(("elastic", "distortion", "cutout", "jitter", "noise"), 0.3),
    }  # fmt: skip
    found = Pix2PixConfig(size=32, patch=16, **said).augmentation()
    assert {name: getattr(found, name) for name in said} == said
    geometry = {name: said[name] for name in ("flip", "vertical_flip", "elastic", "elastic_sigma", "distortion")}
    unpaired = CycleGANConfig(size=32, patch=16, **geometry).augmentation()
    assert unpaired == unpaired.geometry() and unpaired.elastic == said["elastic"]


class Darker(Pix2PixTrainer):
    """With an augmentation of one's own."""

    @staticmethod
    def augment(x, y, rng):
        """Inputs at a random brightness, targets blue."""
        assert (x.shape, x.dtype) == ((32, 32, 3), np.uint8)
        y[..., :2] = 0
        return (x * rng.random()).astype(np.uint8), y


def test_a_trainers_own_augmentation_is_done_to_what_it_is_trained_on_and_resumes_to_the_same(tmp_path):
    config = Pix2PixConfig(**SMALL | {"size": 32}, max_steps=3)
    plain, own = (kind.load_data(config, None) for kind in (Pix2PixTrainer, Darker))
    rng = np.random.default_rng
    for index in range(3):
        was, found = (data["data"].sample(index, rng(index)) for data in (plain, own))
        assert (found[1][:2] == -1).all() and torch.equal(found[1][2], was[1][2])
        assert found[0].mean() < was[0].mean()
        assert equal(own["test_data"][index], plain["test_data"][index])
    with Darker(config, data=own["data"], run_dir=tmp_path / "whole") as whole:
        whole.train()
    with Darker(config, data=own["data"], run_dir=tmp_path / "part") as part:
        part.iterate()
        part.save()
    resumed = Darker(config, data=own["data"], run_dir=tmp_path / "part" / "v001", resume=True)
    resumed.train()
    assert resumed.digest() == whole.digest()


@pytest.mark.parametrize("kind", BOTH)
def test_an_augmentation_that_needs_a_trainer_is_refused_in_one_line(kind):
    class Wrong(kind):
        def augment(self, x, y, rng):
            return x, y

    with pytest.raises(UsageError, match=r"Wrong\.augment is a method of a trainer, .* write @staticmethod above it"):
        Wrong.load_data(kind.Config(**SMALL | {"size": 32}), None)


def test_a_weight_for_a_term_that_is_not_there_names_the_term():
    with pytest.raises(UsageError, match="no term 'G_L2'; did you mean 'G_L1'"):
        trainer_of(Pix2PixTrainer, weights={"G_L2": 1})


def test_every_setting_is_among_the_bad_ones():
    names = {field for kind in (Pix2PixConfig, CycleGANConfig) for field in kind.__dataclass_fields__}
    base = set(TrainerConfig.__dataclass_fields__) | set(StartSettings.__dataclass_fields__)
    assert names - base - {"max_steps"} == (BAD.keys() | OF_PIX2PIX.keys()) - base


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("monitor", ["psnr", "ssim"])
def test_what_is_better_when_larger_is_not_minimized(kind, monitor):
    with pytest.raises(UsageError, match="monitor_mode is 'min': expected null or 'max', for '" + monitor):
        kind.Config(monitor=monitor, monitor_mode="min", size=32, patch=16)
    alone = kind.Config(monitor=monitor, size=32, patch=16)
    assert alone.mode_of(alone.monitor, alone.monitor_mode) == "max"


def test_a_subclass_may_have_fields_of_its_own_kinds():
    @dataclass(kw_only=True)
    class Mine(Pix2PixConfig):
        net: torch.nn.Module | None = None
        patch: int = 16

    assert Mine(net=torch.nn.Identity(), size=16).patch == 16
    with pytest.raises(UsageError, match="gan is 'x'"):
        Mine(gan="x", size=16)


def test_numbers_are_learning_rates_too():
    config = Pix2PixConfig(learning_rate=1e-3, d_learning_rate=1)
    assert (config.learning_rate, config.d_learning_rate) == (1e-3, 1.0)


def squared(fake, target):
    return (fake - target).square().mean()


register_spec(
    "own",
    {
        "pairs": build_objective("basic").terms.values(),
        "squared": [Term("G_SQUARED", squared, weight=7.0, tags=("generator",))],
        "odd": [Term("G_ODD", weight=1.0, tags=("generator",))],
        "late": [Term("D_LATE", squared, tags=("discriminator",))],
        "cycles": [t for t in build_objective("basic", "cyclegan").terms.values() if "IDENT" not in t.name],
    },
)


def test_a_spec_of_ones_own_adds_terms():
    trainer = trainer_of(Pix2PixTrainer, spec="own", objective="pairs+squared")
    trainer.train()
    assert trainer.metrics["G_SQUARED.weight"] == 7.0 and trainer.metrics["G_SQUARED"] > 0
    plain = trainer_of(Pix2PixTrainer)
    plain.train()
    assert not equal(weights([trainer.generator]), weights([plain.generator]))


@pytest.mark.parametrize(
    ("kind", "objective", "name"),
    [
        (Pix2PixTrainer, "pairs+odd", "G_ODD"),
        (Pix2PixTrainer, "pairs+late", "D_LATE"),
        (CycleGANTrainer, "cycles+squared", "G_SQUARED"),
    ],
)
def test_a_term_that_nothing_computes_is_refused(kind, objective, name):
    with pytest.raises(UsageError, match=f"has the term '{name}', which {kind.__name__} does not compute"):
        trainer_of(kind, spec="own", objective=objective)


def test_a_subclass_computes_further_terms():
    class Odd(Pix2PixTrainer):
        computes = (*Pix2PixTrainer.computes, "G_ODD")

        def g_losses(self, x, y, fake):
            return self.objective(G_GAN=(fake - x).square().mean(), G_ODD=fake.mean(), G_L1=(fake, y))

    trainer = Odd(data=pictures(), spec="own", objective="pairs+odd", max_steps=1, **SMALL)
    trainer.train()
    assert "G_ODD" in trainer.metrics


@pytest.mark.parametrize("kind", BOTH)
def test_diffaugment_reaches_what_the_discriminator_sees_and_the_generator_learns_through_it(kind):
    bright = tuple(each.abs() / 2 + 0.5 for each in pictures(4))
    seen = []
    trainer = trainer_of(kind, bright, diffaugment="cutout", batch_size=4, max_steps=1, dropout=0.0)
    (d, *_), (g, *_) = networks(trainer)[1], networks(trainer)[0]
    d.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    before = weights([g])
    trainer.train()
    assert not equal(before, weights([g]))
    holes = [each.eq(0).flatten(2).all(1).any(1) for each in seen]  # all channels of a pixel at once
    assert len(seen) == 3 and all(hole.all() for hole in holes)
    if kind is Pix2PixTrainer:  # real and made pairs, their input and target: all with the same hole
        real, made, _ = (each.eq(0) for each in seen)
        assert all(torch.equal(real[:, :1], made[:, channel, None]) for channel in range(6))
