"""pix2pix's own: penalties, the pool of pairs, what is measured and shown, folders of pairs from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from treadle.cli.main import main
from treadle.errors import UsageError
from treadle.gans.pix2pix import Pix2PixConfig, Pix2PixTrainer
from treadle.images.metrics import measure

SMALL = {
    "device": "cpu",
    "precision": "fp32",
    "size": 16,
    "features": 4,
    "downs": 2,
    "d_features": 4,
    "patch": 16,
    "log_every": "1 step",
}


def pictures(count=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(count, 3, 16, 16, generator=generator) * 2 - 1 for _ in range(2))


def trainer_of(**settings):
    return Pix2PixTrainer(data=pictures(), **SMALL | {"max_steps": 4} | settings)


# The game ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "part"), [("D_R1", "r1"), ("D_GP", "gp")])
def test_a_penalty_is_due_at_every_nth_update_of_the_discriminator_with_n_times_the_weight(name, part):
    often, rarely = (trainer_of(objective=f"basic+{part}", penalty_every=every) for every in (1, 3))
    for trainer in (often, rarely):
        trainer.train()
    assert [entry.step for entry in often.objective.history[name]] == [1, 2, 3, 4]
    assert [entry.step for entry in rarely.objective.history[name]] == [1, 4]
    first = [trainer.objective.history[name][0].mean for trainer in (often, rarely)]
    assert first[1] == pytest.approx(3 * first[0]) and first[0] > 0
    assert rarely.objective.history[name][0].weight == 5.0


def test_r1_is_half_the_squared_gradient_of_real_pairs():
    trainer = trainer_of(objective="basic+r1", max_steps=1)
    x, y = (each[:1] for each in pictures())
    y = y.clone().requires_grad_()
    logits = trainer.discriminator(torch.cat([x, y], 1))
    (gradient,) = torch.autograd.grad(logits.sum(), y)
    found = trainer.penalties(x, y.detach(), y.detach())["D_R1"]
    assert found.item() == pytest.approx(0.5 * gradient.square().sum().item() / logits.numel(), rel=1e-5)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_wgan_gp_trains_a_critic_without_batch_norm(norm):
    trainer = trainer_of(gan="wgan", objective="basic+gp", norm=norm, d_turns=2, g_turns=1)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in trainer.discriminator.modules())
    trainer.train()
    assert trainer.status == "finished"
    assert {"D_GP", "D_real", "G_L1"} <= trainer.objective.history.keys()


def test_a_pool_shows_earlier_outputs_with_the_inputs_they_were_made_of():
    x, y = (torch.arange(20.0).reshape(20, 1, 1, 1).expand(20, 3, 16, 16) / 20 for _ in range(2))
    trainer = Pix2PixTrainer(data=(x, y), pool=3, shuffle=False, max_steps=20, dropout=0.0, **SMALL)
    trainer.generator.register_forward_hook(lambda module, inputs, out: out * 0 - inputs[0])
    shown = []
    trainer.discriminator.register_forward_pre_hook(lambda module, inputs: shown.append(inputs[0].detach()))
    trainer.train()
    made = shown[1::3]  # of real, made, and what the generator is judged by
    assert all(torch.equal(pair[:, :3], -pair[:, 3:]) for pair in made)
    numbers = [round(pair[0, 0, 0, 0].item() * 20) for pair in made]
    assert numbers[:3] == [0, 1, 2]
    assert any(number != step for step, number in enumerate(numbers))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"objective": "vgg"}, "no term 'G_GAN'"),
        ({"objective": "basic+vgg"}, "vgg_weights"),
        ({"objective": "basic", "vgg_weights": "x"}, "does not use it"),
    ],
)
def test_an_objective_that_cannot_be_played_is_refused(settings, said):
    with pytest.raises(UsageError, match=said):
        trainer_of(**settings)


# What is measured and shown ----------------------------------------------------------------------------------------


def test_validation_is_the_mean_over_pictures_of_ragged_batches():
    held_out = pictures(5, seed=1)
    trainer = trainer_of(validation_data=held_out, batch_size=3, ema=None)
    trainer.train()
    trainer.generator.eval()
    with torch.no_grad():
        figures = measure(trainer.generator(held_out[0]), held_out[1])
    for name, values in figures.items():
        assert trainer.validation_metrics[name] == pytest.approx(np.mean(values), rel=1e-6)


def test_examples_are_as_many_as_asked_for():
    two, four = (
        trainer_of(validation_data=pictures(5, seed=1), batch_size=3, examples=count).examples()["translations"]
        for count in (2, 4)
    )
    assert four.shape[1] == two.shape[1] and four.shape[0] > two.shape[0]


# Folders of pairs --------------------------------------------------------------------------------------------------

FLAGS = [
    *("--max-steps", "3", "--size", "16", "--features", "4", "--downs", "2", "--d-features", "4", "--patch", "16"),
    *("--device", "cpu", "--precision", "fp32", "--seed", "1"),
]


@pytest.fixture
def pairs(tmp_path, monkeypatch):
    """A folder with train (5 pairs, A red, B blue), val and test (2 each); the working directory is beside it."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 2), ("test", 2)):
        (tmp_path / "pairs" / split).mkdir(parents=True)
        for index in range(count):
            picture = np.zeros((16, 32, 3), np.uint8)
            picture[:, :16, 0] = rng.integers(100, 256, (16, 16))
            picture[:, 16:, 2] = rng.integers(100, 256, (16, 16))
            Image.fromarray(picture).save(tmp_path / "pairs" / split / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "pairs"


def summary(run):
    return json.loads((Path(run) / "summary.json").read_text())


def test_train_from_a_folder_in_either_direction(pairs, capsys):
    for direction in ("AtoB", "BtoA"):
        arguments = ["train", "pix2pix", "--data", "pairs", "--direction", direction, "--run", f"runs/{direction}"]
        assert main([*arguments, *FLAGS]) == 0, capsys.readouterr().err
    a_to_b, b_to_a = (summary(f"runs/{direction}/v001") for direction in ("AtoB", "BtoA"))
    assert a_to_b["status"] == b_to_a["status"] == "finished"
    assert a_to_b["digest"] != b_to_a["digest"]
    assert {"l1", "psnr", "ssim"} <= a_to_b["validation_metrics"].keys()
    (panel,) = Path("runs/AtoB/v001/examples").glob("step-00000003-*.png")
    assert np.asarray(Image.open(panel)).shape[1] > 3 * 16
    x, y = Pix2PixTrainer.load_data(Pix2PixConfig(size=16, patch=16, direction="BtoA"), pairs)["test_data"][0]
    assert x[2].min() > -0.5 and x[0].max() == -1 and y[0].min() > -0.5 and y[2].max() == -1


def test_an_augmentation_in_a_program_of_ones_own_is_what_is_trained_with(pairs, capsys):
    Path("prog.py").write_text(
        "from treadle.gans.pix2pix import Pix2PixTrainer\n\n\n"
        "class Noted(Pix2PixTrainer):\n"
        "    @staticmethod\n"
        "    def augment(x, y, rng):\n"
        "        print(int(rng.integers(1000)))\n"
        "        return x, y\n"
    )
    arguments = [
        "train",
        "--trainer",
        "prog.py:Noted",
        "--data",
        "pairs",
        "--run",
        "own",
        *FLAGS,
        "--elastic",
        "1",
        "2",
    ]
    assert main(arguments) == 0, capsys.readouterr().err
    drawn = [line for line in capsys.readouterr().out.splitlines() if line.isdecimal()]
    assert len(drawn) >= 3 and len(set(drawn)) > 1
    assert "elastic: [1.0, 2.0]" in Path("own/v001/config.yaml").read_text()


def test_a_picture_that_changed_is_noticed_by_resume(pairs, capsys):
    assert main(["train", "pix2pix", "--data", "pairs", *FLAGS]) == 0
    picture = pairs / "train" / "3.png"
    Image.fromarray(np.zeros((16, 32, 3), np.uint8)).save(picture)
    capsys.readouterr()
    assert main(["resume", "runs/pix2pix/v001", "--set", "max_steps=5"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "the data of 'feed' is not what it was" in said


def test_what_is_missing_is_said_and_what_may_be_missing_may(pairs, capsys):
    for split in ("val", "test"):
        for file in (pairs / split).iterdir():
            file.unlink()
    assert main(["train", "pix2pix", "--data", "pairs", *FLAGS]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "val" in said and "holds no pictures" in said
    for split in ("val", "test"):
        (pairs / split).rmdir()
    assert main(["train", "pix2pix", "--data", "pairs", *FLAGS]) == 0
    (pairs / "train").rename(pairs / "trian")
    capsys.readouterr()
    assert main(["train", "pix2pix", "--data", "pairs", *FLAGS]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "no folder 'train'" in said and "did you mean 'trian'" in said


def test_a_damaged_picture_is_refused_or_left_out(pairs, capsys):
    (pairs / "train" / "2.png").write_bytes(b"no picture")
    assert main(["train", "pix2pix", "--data", "pairs", *FLAGS]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "1 of 5 pictures" in said and "2.png" in said and "on_bad" in said
    assert main(["train", "pix2pix", "--data", "pairs", "--on-bad", "skip", "--max-epochs", "1", *FLAGS]) == 0
    (left_out,) = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert left_out.startswith("treadle: 1 of 5 pictures") and "2.png" in left_out
    data = (pairs / "train" / "1.png").read_bytes()
    (pairs / "train" / "2.png").write_bytes(data[: len(data) // 2])  # the header is whole
    capsys.readouterr()
    assert main(["train", "pix2pix", "--data", "pairs", "--max-steps", "5", *FLAGS[2:]]) == 1
    assert "2.png" in capsys.readouterr().err


# Label maps ---------------------------------------------------------------------------------------------------------

COLORS = np.array([(0, 0, 0), (128, 0, 0), (0, 0, 128)], np.uint8)
LABELS = SMALL | {"classes": "auto", "direction": "BtoA", "generator": "spade", "gan": "oasis", "load_size": 16}


@pytest.fixture
def label_maps(tmp_path):
    """Photographs on the left, label maps of three colours on the right."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        (tmp_path / "labels" / split).mkdir(parents=True)
        for index in range(count):
            photo = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            classes = COLORS[rng.choice(3, (8, 8), p=[0.5, 0.3, 0.2]).repeat(4, 0).repeat(4, 1)]
            file = tmp_path / "labels" / split / f"{index}.png"
            Image.fromarray(np.concatenate([photo, classes], 1)).save(file)
    return tmp_path / "labels"


def test_classes_are_found_in_the_training_inputs_and_noted(label_maps):
    config = Pix2PixConfig(**LABELS)
    data = Pix2PixTrainer.load_data(config, label_maps)
    assert config.classes == "#000000 #800000 #000080" and config.in_planes == 3
    x, y = data["validation_data"][0]
    assert x.shape == (3, 16, 16) and set(x.unique().tolist()) == {0.0, 1.0} and bool((x.sum(0) == 1).all())
    picture = np.asarray(Image.open(label_maps / "val" / "0.png"))[::2, 32::2]
    np.testing.assert_array_equal(COLORS[x.argmax(0)], picture)  # by nearest neighbour
    assert y.min() < 0
    named = Pix2PixConfig(**LABELS | {"classes": "#000080 #000000 #800000 #00ff00"})
    other, _ = Pix2PixTrainer.load_data(named, label_maps)["validation_data"][0]
    assert other.shape == (4, 16, 16) and torch.equal(other[[1, 2, 0]], x) and not other[3].any()


def test_label_maps_are_learnt_kept_shown_and_translated(label_maps, capsys):
    run = label_maps.parent / "run"
    settings = [f"--set={name}={value}" for name, value in LABELS.items()]
    assert main(["train", "pix2pix", "--data", str(label_maps), "--run", str(run), *settings, "--set=max_steps=3"]) == 0
    version = run / "v001"
    assert "#000000 #800000 #000080" in (version / "config.yaml").read_text()
    shown = np.asarray(Image.open(version / "report" / "translations.png"))
    for color in COLORS:
        assert (shown == color).all(-1).mean() > 0.02  # as colours, not as planes
    model = Pix2PixTrainer.load_model(version)
    assert model.in_channels == 3 and type(model).__name__ == "SpadeGenerator"
    label_map = np.asarray(Image.open(label_maps / "test" / "0.png"))[:, 32:]
    translator = Pix2PixTrainer.translators(version)["BtoA"]
    made = translator.translate(label_map)
    assert made.shape == (32, 32, 3)
    np.testing.assert_array_equal(translator.translate(label_map ^ 3), made)  # colours that are off by a little
    capsys.readouterr()
    assert main(["test", str(version)]) == 0
    assert "texture" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"gan": "oasis"}, "classes is None: expected colours or auto, for gan: oasis"),
        ({"classes": "#000000"}, "1 colours of classes"),
        ({"classes": "red blue"}, "the colour 'red' of a class"),
        ({"classes": "auto", "gan": "oasis", "objective": "basic+r1"}, "one without r1 and gp, for gan: oasis"),
    ],
)
def test_settings_of_label_maps_that_do_not_fit_are_refused(settings, said):
    with pytest.raises(UsageError, match=said):
        Pix2PixConfig(**SMALL | settings)


def test_classes_that_are_still_to_be_found_are_asked_for():
    with pytest.raises(UsageError, match="classes is 'auto': expected colours, where the data come from elsewhere"):
        trainer_of(classes="auto")
    planes = torch.nn.functional.one_hot(torch.randint(2, (5, 16, 16)), 2).movedim(-1, 1).float()
    trainer = Pix2PixTrainer(data=(planes, pictures()[1]), classes="#000000 #ffffff", gan="oasis", max_steps=2, **SMALL)
    trainer.train()
    assert trainer.generator.in_channels == 2 and trainer.discriminator.classes == 2
