"""CycleGAN's own: which ways it goes, what it measures, its folders."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from treadle.cli.main import main
from treadle.errors import UsageError
from treadle.gans.cyclegan import CycleGANConfig, CycleGANTrainer
from treadle.gans.images import PairedImages, UnpairedImages
from treadle.gans.judging import Judge
from treadle.gans.sources import ArrayPairs, ArrayPictures
from treadle.gans.specs import build_objective, register_spec
from treadle.images.texture import texture

SMALL = {
    "device": "cpu",
    "precision": "fp32",
    "size": 16,
    "features": 4,
    "blocks": 1,
    "d_features": 4,
    "patch": 16,
    "log_every": "1 step",
}


def pictures(count=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(count, 3, 16, 16, generator=generator) * 2 - 1 for _ in range(2))


def trainer_of(**settings):
    return CycleGANTrainer(data=pictures(), **SMALL | {"max_steps": 2} | settings)


TERMS = build_objective("basic", "cyclegan").terms
register_spec("one way", {"basic": [t for t in TERMS.values() if t.name not in ("G_CYCLE_B", "G_IDENTITY_A")]})


@pytest.mark.parametrize(
    ("settings", "ways"),
    [
        ({}, (3, 3)),
        ({"weights": {"G_IDENTITY_A": 0, "G_IDENTITY_B": 0}}, (2, 2)),
        ({"weights": {"G_CYCLE_A": 0, "G_IDENTITY_B": "linear 5 to 0"}}, (3, 2)),
        ({"spec": "one way"}, (2, 2)),
    ],
)
def test_each_way_is_gone_that_a_term_needs_and_no_other(settings, ways):
    """A to B: the translation, the way back of B's cycle, B's identity; and the other way round."""
    trainer, calls = trainer_of(max_steps=1, examples=0, **settings), [0, 0]
    for number, network in enumerate((trainer.generator_ab, trainer.generator_ba)):
        network.register_forward_hook(lambda *_, number=number: calls.__setitem__(number, calls[number] + 1))
    trainer.train()
    assert tuple(calls) == ways
    weightless = {name for name, weight in settings.get("weights", {}).items() if weight == 0}
    assert trainer.objective.history.keys() == trainer.objective.terms.keys() - weightless


def test_identity_needs_equal_channels():
    with pytest.raises(UsageError, match="identity needs pictures with as many channels in A as in B"):
        trainer_of(in_channels=1)
    assert trainer_of(in_channels=1, weights={"G_IDENTITY_A": 0, "G_IDENTITY_B": 0}).generator_ba.out_channels == 1


def test_each_discriminator_has_a_history_of_its_own_kind():
    trainer = CycleGANTrainer(data=(torch.zeros(9, 3, 16, 16), torch.ones(9, 3, 16, 16)), pool=4, **SMALL, max_steps=6)
    trainer.generator_ab.register_forward_hook(lambda module, inputs, out: out * 0 + inputs[0] + 0.25)
    trainer.generator_ba.register_forward_hook(lambda module, inputs, out: out * 0 + inputs[0] - 0.25)
    trainer.train()
    assert trainer.pool_b.count == trainer.pool_a.count == 4
    assert trainer.pool_b.state_dict()["pictures"].unique().tolist() == [0.25]
    assert trainer.pool_a.state_dict()["pictures"].unique().tolist() == [0.75]


@pytest.mark.parametrize(("part", "name"), [("r1", "R1"), ("gp", "GP")])
def test_penalties_of_both_discriminators_are_due_at_every_nth_update_with_n_times_the_weight(part, name):
    often, rarely = (trainer_of(objective=f"basic+{part}", penalty_every=every, max_steps=4) for every in (1, 3))
    for trainer in (often, rarely):
        trainer.train()
    for side in "AB":
        steps = [[entry.step for entry in each.objective.history[f"D_{side}_{name}"]] for each in (often, rarely)]
        assert steps == [[1, 2, 3, 4], [1, 4]]
        first = [each.objective.history[f"D_{side}_{name}"][0] for each in (often, rarely)]
        assert first[1].mean == pytest.approx(3 * first[0].mean) and first[0].mean > 0
        assert first[1].weight == 5.0


def test_penalties_are_those_of_the_papers_of_each_discriminators_own_pictures():
    trainer = trainer_of(objective="basic+r1+gp", max_steps=1)
    (a, b), (fake_a, fake_b) = pictures(2), pictures(2, seed=1)
    torch.manual_seed(3)
    found = trainer.d_losses(a, b, fake_a, fake_b)
    torch.manual_seed(3)
    for side, network, real, fake in (
        ("A", trainer.discriminator_a, a, fake_a),
        ("B", trainer.discriminator_b, b, fake_b),
    ):
        pictures_of = real.clone().requires_grad_()
        logits = network(pictures_of)
        (gradient,) = torch.autograd.grad(logits.sum(), pictures_of)
        expected = 0.5 * gradient.square().sum().item() / logits.numel()
        assert found[f"D_{side}_R1"].item() == pytest.approx(expected, rel=1e-5)
        share = torch.rand(2, 1, 1, 1)
        between = (share * real + (1 - share) * fake).requires_grad_()
        (gradient,) = torch.autograd.grad(network(between).mean((1, 2, 3)).sum(), between)
        norms = gradient.flatten(1).norm(dim=1)
        assert found[f"D_{side}_GP"].item() == pytest.approx((norms - 1).square().mean().item(), rel=1e-5)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_wgan_gp_trains_critics_without_batch_norm(norm):
    trainer = trainer_of(gan="wgan", objective="basic+gp", norm=norm, d_turns=2, g_turns=1, max_steps=4)
    for critic in (trainer.discriminator_a, trainer.discriminator_b):
        assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in critic.modules())
    trainer.train()
    assert trainer.status == "finished"
    assert {"D_A_GP", "D_B_GP", "D_A_real", "G_CYCLE_A"} <= trainer.objective.history.keys()


def test_the_way_there_and_back_is_measured_and_targets_where_there_are_some():
    a, b = pictures(3, seed=1)
    b = b / 4
    trainer = trainer_of(validation_data=(a, b), ema=None, batch_size=2)
    trainer.train()
    g_ab, g_ba = trainer.generator_ab.eval(), trainer.generator_ba.eval()
    with torch.no_grad():
        ways = (g_ba(g_ab(a)), a), (g_ab(g_ba(b)), b)
    levels = [[((each + 1) * 127.5).round() for each in way] for way in ways]
    cycle = sum((back - start).abs().mean().item() for back, start in levels) / 2 / 255
    metrics = trainer.validation_metrics
    assert metrics["cycle"] == pytest.approx(cycle, rel=1e-5)
    figures = {f"{name}_{way}" for name in ("sharpness", "spectrum", "swd", "lattice") for way in ("ab", "ba")}
    assert metrics.keys() == {"cycle", "texture", *figures}
    with torch.no_grad():
        ways = texture(g_ab(a), b), texture(g_ba(b), a)
    assert [metrics["spectrum_ab"], metrics["spectrum_ba"]] == pytest.approx([way["spectrum"] for way in ways])
    assert metrics["texture"] == pytest.approx((ways[0]["texture"] + ways[1]["texture"]) / 2)
    known = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16, 3), dtype=np.uint8)
    paired = trainer_of(validation_data=PairedImages(ArrayPairs(*known), 16))
    paired.train()
    assert paired.validation_metrics.keys() == {"cycle", "l1", "psnr", "ssim", "texture", *figures}


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """trainA (4, red) and trainB (3, blue); the working directory is beside them."""
    for side, count in (("A", 4), ("B", 3)):
        (tmp_path / "data" / f"train{side}").mkdir(parents=True)
        for index in range(count):
            picture = np.zeros((16, 16, 3), np.uint8)
            picture[:, :, "AB".index(side) * 2] = 200 + index
            Image.fromarray(picture).save(tmp_path / "data" / f"train{side}" / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


FLAGS = [
    *("--max-steps", "2", "--size", "16", "--features", "4", "--blocks", "1", "--d-features", "4", "--patch", "16"),
    *("--device", "cpu"),
]


def test_train_from_folders_with_and_without_validation(folders, capsys):
    assert main(["train", "cyclegan", "--data", "data", *FLAGS]) == 0, capsys.readouterr().err
    (folders / "valA").mkdir()
    Image.new("RGB", (16, 16)).save(folders / "valA" / "0.png")
    capsys.readouterr()
    assert main(["train", "cyclegan", "--data", "data", *FLAGS]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "valB: no such folder" in said
    (folders / "valB").mkdir()
    Image.new("RGB", (16, 16)).save(folders / "valB" / "0.png")
    assert main(["train", "cyclegan", "--data", "data", *FLAGS]) == 0
    assert "cycle" in capsys.readouterr().out
    (folders / "trainB").rename(folders / "trainC")
    assert main(["train", "cyclegan", "--data", "data", *FLAGS]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "no folder 'trainB'" in said


def test_the_direction_exchanges_a_and_b(folders):
    for direction, red in (("AtoB", 0), ("BtoA", 1)):
        data = CycleGANTrainer.load_data(CycleGANConfig(size=16, patch=16, direction=direction), folders)["data"]
        assert len(data) == 4
        assert data[0][red][0].min() > 0 and data[0][1 - red][2].min() > 0


def test_the_shorter_side_is_tested_once():
    class Source:
        a = ArrayPictures(np.zeros((2, 16, 16, 3), np.uint8), ["a0", "a1"])
        b = ArrayPictures(np.zeros((3, 16, 16, 3), np.uint8), ["b0", "b1", "b2"])

    class Counting(Judge):
        def __init__(self):
            super().__init__(ways=("ab", "ba"))
            self.seen = {"ab": [0, 0], "ba": [0, 0]}

        def gather(self, outputs, real, way=""):
            self.seen[way][0] += len(outputs)
            self.seen[way][1] += len(real)

    trainer, judge = trainer_of(test_data=UnpairedImages(Source(), 16)), Counting()
    names = [row.name for row in trainer.rows(trainer.test_feed, judge)]
    assert names == ["A to B: a0", "B to A: b0", "A to B: a1", "B to A: b1", "B to A: b2"]
    assert judge.seen == {"ab": [2, 3], "ba": [3, 2]}


def test_a_monitor_that_needs_targets_sorts_no_test_without_them(tmp_path):
    class Source:
        a = b = ArrayPictures(np.zeros((3, 16, 16, 3), np.uint8))

    trainer = trainer_of(test_data=UnpairedImages(Source(), 16), monitor="l1", limit_test_batches=2, batch_size=1)
    trainer.test_report(tmp_path / "test", trainer.test_feed)
    table = json.loads((tmp_path / "test" / "table.json").read_text())
    assert table["sorted_by"] == "cycle" and len(table["rows"]) == 4  # of two batches, both ways


def test_with_known_targets_both_directions_are_tested_with_a_round_trip():
    """L1 and the like are those of the translations from A: B and A may be of other kinds."""
    known = np.random.default_rng(0).integers(0, 256, (2, 2, 16, 16, 3), dtype=np.uint8)
    trainer = trainer_of(test_data=PairedImages(ArrayPairs(*known), 16))
    rows = list(trainer.rows(trainer.test_feed, Judge(ways=("ab", "ba"))))
    assert [row.name for row in rows] == ["A to B: 0", "B to A: 0", "A to B: 1", "B to A: 1"]
    assert all(list(row.pictures) == ["input", "output", "back", "target"] for row in rows)
    assert set(rows[0].metrics) == {"l1", "psnr", "ssim", "sharpness", "lattice", "cycle"}
    assert set(rows[1].metrics) == {"cycle"}
    assert np.array_equal(rows[0].pictures["input"], rows[1].pictures["target"])
