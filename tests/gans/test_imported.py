"""`treadle import`: networks of other programs as a run, which translates, is exported, and is begun with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from their_networks import BATCH, INSTANCE, NectarPatchGAN, NectarUNet, OfficialPatchGAN, OfficialResNet, OfficialUNet
from torch import nn

from treadle.cli.main import main
from treadle.errors import UsageError
from treadle.gans.cyclegan import CycleGANTrainer
from treadle.gans.imported import files_in, import_networks
from treadle.gans.inference import translate
from treadle.gans.pix2pix import Pix2PixTrainer
from treadle.images.pixels import to_pixels, to_tensor
from treadle.recipes.registry import load_recipe
from treadle.runs.models import find_model
from treadle.runs.run import read_journal, read_summary


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


def saved(network: nn.Module, name: str) -> nn.Module:
    """A network, with other running statistics than at first, in a file as its program would write it."""
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.01, 0.2)
    state: Any = network.state_dict()
    torch.save({"state_dict": state} if name.endswith(".tar") else state, name)
    return network.eval()


def picture(seed: int = 0, size: int = 64) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)


def test_a_generator_alone_translates_as_it_did() -> None:
    theirs = saved(OfficialUNet(3, 3, 6, 2, BATCH), "latest_net_G.pth")
    run, networks = import_networks(["latest_net_G.pth"], "runs/imported", direction="BtoA")
    assert [(each.network.layout, each.name) for each in networks] == [("official U-Net", "generator")]
    with torch.no_grad():
        right = to_pixels(theirs(to_tensor(picture())[None]))[0]
    made = translate(Pix2PixTrainer.load_model(run.path), picture())
    assert np.abs(made.astype(int) - right).max() <= 1 and right.std() > 1
    config = load_recipe(run.path / "config.yaml").config
    assert (config.direction, config.norm, config.downs) == ("BtoA", "batch", 6)
    assert (config.size, config.max_epochs) == (256, 200)
    entry = read_journal(run.path)[0]
    assert entry["event"] == "import" and entry["networks"][0]["file"] == "latest_net_G.pth"
    assert read_summary(run.path)["status"] == "finished" and list(Pix2PixTrainer.exportable(run.path)) == ["generator"]


def test_the_networks_of_a_cyclegan_go_where_they_belong() -> None:
    """The official D_A judges pictures of B."""
    nets = {
        name: saved(
            OfficialResNet(3, 3, 2, 1, INSTANCE) if name[0] == "G" else OfficialPatchGAN(3, 2, 3, INSTANCE),
            f"zebra/latest_net_{name}.pth",
        )
        for name in ("G_A", "G_B", "D_A", "D_B")
    }
    run, networks = import_networks(files_in("zebra"), "runs/zebra")
    assert [each.name for each in networks] == ["discriminator_b", "discriminator_a", "generator_ab", "generator_ba"]
    for direction, name in (("AtoB", "G_A"), ("BtoA", "G_B")):
        with torch.no_grad():
            right = to_pixels(nets[name](to_tensor(picture())[None]))[0]
        made = translate(CycleGANTrainer.load_model(run.path, direction), picture())
        assert np.abs(made.astype(int) - right).max() <= 1
    model = find_model(run.path)
    first = nets["D_A"].model[0].weight  # type: ignore[union-attr, index]
    assert torch.equal(model.of("discriminator_b")["layers.0.0.weight"], first)  # type: ignore[arg-type]


def test_training_begins_with_what_was_imported(capsys: pytest.CaptureFixture[str]) -> None:
    """NectarGAN's files, and a generator of the official code for both ways of a CycleGAN."""
    saved(NectarUNet(3, 2, 3, "Transposed"), "out/epoch4_netG.pth.tar")
    saved(NectarPatchGAN(3, 2, 3), "out/epoch4_netD.pth.tar")
    saved(NectarUNet(3, 2, 3, "Transposed"), "out/epoch12_netG.pth.tar")
    assert main(["import", "out/epoch4_netG.pth.tar", "out/epoch4_netD.pth.tar", "--set", "size=32"]) == 0
    assert capsys.readouterr().out.splitlines()[:3] == [
        "epoch4_netG.pth.tar: NectarGAN U-Net, the generator",
        "epoch4_netD.pth.tar: NectarGAN PatchGAN, the discriminator",
        "run: runs/imported/v001",
    ]
    model = find_model("runs/imported/v001")
    settings = ["max_steps=1", "batch_size=2", "init=runs/imported/v001"]
    with load_recipe("runs/imported/v001/config.yaml").with_overrides(settings).build(run_dir="runs/tuned") as trainer:
        for network in (trainer.generator, trainer.discriminator):
            name = "generator" if network is trainer.generator else "discriminator"
            assert all(torch.equal(value, model.of(name)[key]) for key, value in network.state_dict().items())
        assert trainer.train().step == 1
    networks = ["downs=5", "features=2", "norm=instance", "padding=reflect", "upsampling=transposed"]
    both = 'init={generator_ab: "runs/imported:generator", generator_ba: "runs/imported@best:generator"}'
    small = ["generator=unet", "size=32", "patch=16", "d_features=2"]
    recipe = load_recipe("cyclegan").with_overrides([*networks, *small, both])
    with recipe.build() as trainer:
        for network in (trainer.generator_ab, trainer.generator_ba):
            assert all(torch.equal(value, model.of("generator")[key]) for key, value in network.state_dict().items())
    assert main(["resume", "runs/imported/v001"]) == 2
    assert "was imported: it has weights, and no training that could go on; begin one" in capsys.readouterr().err
    assert main(["import", "out"]) == 0 and "epoch12_netG.pth.tar: " in capsys.readouterr().out


def test_a_recipe_with_other_networks_refuses_what_was_imported() -> None:
    saved(OfficialUNet(3, 3, 6, 2, BATCH), "latest_net_G.pth")
    run, _ = import_networks(["latest_net_G.pth"], "runs/imported")
    recipe = load_recipe("facades").with_overrides(["features=3", f"init.generator={run.path}"])
    with pytest.raises(UsageError, match=r"do not fit .*of another shape 'generator.encoder.0.0.0.weight' \("):
        recipe.build()
    with pytest.raises(UsageError, match=r"init.generator: .*latest_net_G.pth is pickled, .*: treadle import .*G.pth"):
        load_recipe("facades").with_overrides(["init.generator=latest_net_G.pth"]).build()


def test_what_does_not_belong_together_is_one_line_and_makes_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    saved(OfficialUNet(3, 3, 5, 2, BATCH), "G.pth")
    saved(OfficialPatchGAN(6, 2, 3, BATCH), "D.pth")
    saved(OfficialPatchGAN(6, 2, 3, INSTANCE), "D_instance.pth")
    saved(OfficialPatchGAN(3, 2, 3, BATCH), "D_alone.pth")
    saved(OfficialUNet(3, 3, 5, 2, BATCH), "latest_net_D_A.pth")
    odd = saved(OfficialUNet(3, 3, 5, 2, BATCH), "odd.pth").state_dict()
    torch.save(odd | {"model.model.1.model.2.weight": torch.ones(5)}, "odd.pth")
    Path("empty").mkdir()
    for arguments, said in {
        ("D.pth",): "no generator in D.pth: name its file too",
        ("G.pth", "D_instance.pth"): "G.pth has norm='batch' and D_instance.pth norm='instance': Treadle's networks",
        (
            "G.pth",
            "D_alone.pth",
        ): "D_alone.pth takes 3 channels, and the discriminator of pictures with 3 and",
        ("G.pth", "D.pth", "D.pth"): "D.pth and D.pth would both be the discriminator: import one of them",
        ("G.pth", "G.pth"): "G.pth is one of 2 generators or belongs to them, and its name does not say which",
        ("latest_net_D_A.pth", "latest_net_D_A.pth"): "holds a generator, and is called as if it were a discriminator",
        ("odd.pth",): "odd.pth looks like the official U-Net, and is another: size mismatch for encoder.1.0.1.weight",
        ("G.pth", "--set", "features=3"): "features is what the files say, 2: leave it out",
        ("G.pth", "--set", "size=33"): "size is 33: expected a multiple of 32",
        ("G.pth", "--set", "sise=64"): "'sise' is no setting of Pix2PixConfig; did you mean 'size'?",
        ("empty",): "empty has no networks of epoch 'latest' (latest_net_G.pth, say); epochs there: none",
        ("none.pth",): "no file none.pth",
    }.items():
        assert main(["import", *arguments]) == 2, arguments
        printed = capsys.readouterr().err
        assert said in printed and printed.count("\n") == 1, (arguments, printed)
    assert not Path("runs").exists()
