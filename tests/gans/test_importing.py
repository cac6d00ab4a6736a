"""Networks of the official code and of NectarGAN: ours compute the same with their weights, or say why they cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from their_networks import (
    BATCH,
    INSTANCE,
    NONE,
    OLD_INSTANCE,
    NectarPatchGAN,
    NectarUNet,
    OfficialPatchGAN,
    OfficialPixelGAN,
    OfficialResNet,
    OfficialUNet,
)
from torch import nn

from treadle.errors import UsageError
from treadle.gans.importing import Network, read_pickled, recognise
from treadle.gans.pix2pix import Pix2PixConfig


def trained(make: Callable[[], nn.Module], size: int = 64, channels: int = 3) -> nn.Module:
    """A network as after some training: no weight is 0 or 1, and running statistics are those of pictures."""
    torch.manual_seed(0)
    network = make()
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.add_((0.2 if tensor.dim() == 1 else 0.015) * torch.randn_like(tensor))
        for _ in range(3):
            network(torch.rand(2, channels, size, size) * 2 - 1)
    return network.eval()


def ours(network: Network) -> nn.Module:
    """Our network, by the settings and with the weights that were found; every name and shape has to fit."""
    settings = dict(network.settings)
    if network.role == "generator":
        settings |= {"in_channels": network.inputs, "out_channels": network.outputs}
        settings |= {"size": 256, "patch": 70}
        made: nn.Module = Pix2PixConfig(**settings).build_generator()
    else:
        made = Pix2PixConfig(size=256, **settings).build_discriminator(network.inputs)
    made.load_state_dict(network.weights)
    return made.eval()


CASES: dict[str, tuple[Callable[[], nn.Module], int, dict[str, Any]]] = {
    "U-Net, batch": (lambda: OfficialUNet(3, 2, 5, 4, BATCH), 3, {"norm": "batch", "downs": 5, "features": 4}),
    "U-Net of 7, dropout": (lambda: OfficialUNet(1, 3, 7, 2, BATCH), 1, {"downs": 7, "features": 2}),
    "U-Net, instance": (lambda: OfficialUNet(3, 3, 6, 2, INSTANCE), 3, {"norm": "instance", "rectify_skips": True}),
    "U-Net, no norm": (lambda: OfficialUNet(3, 3, 5, 2, NONE), 3, {"norm": "none"}),
    "ResNet, instance": (
        lambda: OfficialResNet(3, 1, 4, 2, INSTANCE),
        3,
        {"blocks": 2, "norm": "instance", "downs": 2},
    ),
    "ResNet, batch, dropout": (lambda: OfficialResNet(3, 3, 4, 3, BATCH, True), 3, {"blocks": 3, "norm": "batch"}),
    "ResNet, no norm": (lambda: OfficialResNet(3, 3, 4, 1, NONE), 3, {"norm": "none", "features": 4}),
    "PatchGAN, batch": (lambda: OfficialPatchGAN(6, 4, 3, BATCH), 6, {"patch": 70, "norm": "batch", "d_features": 4}),
    "PatchGAN, instance": (lambda: OfficialPatchGAN(3, 4, 4, INSTANCE), 3, {"patch": 142, "norm": "instance"}),
    "PatchGAN of one layer": (lambda: OfficialPatchGAN(3, 4, 1, BATCH), 3, {"patch": 16}),
    "PatchGAN, no norm": (lambda: OfficialPatchGAN(3, 4, 2, NONE), 3, {"patch": 34, "norm": "none"}),
    "PatchGAN, spectral": (lambda: OfficialPatchGAN(6, 4, 3, NONE, True), 6, {"spectral": True, "norm": "none"}),
    "PixelGAN, batch": (lambda: OfficialPixelGAN(6, 4, BATCH), 6, {"patch": 1, "norm": "batch"}),
    "PixelGAN, instance": (lambda: OfficialPixelGAN(6, 4, INSTANCE), 6, {"patch": 1, "norm": "instance"}),
    "NectarGAN U-Net": (lambda: NectarUNet(3, 4, 3, "Transposed"), 3, {"padding": "reflect", "downs": 5}),
    "NectarGAN U-Net, bilinear": (lambda: NectarUNet(1, 4, 4, "Bilinear"), 1, {"upsampling": "bilinear", "downs": 6}),
    "NectarGAN PatchGAN": (lambda: NectarPatchGAN(3, 4, 3), 6, {"patch": 34, "norm": "instance"}),
    "NectarGAN PatchGAN of 5": (lambda: NectarPatchGAN(1, 4, 5, 32), 2, {"patch": 142}),
}


@pytest.mark.parametrize("case", CASES)
def test_ours_computes_the_same(case: str, tmp_path: Path) -> None:
    make, channels, settings = CASES[case]
    theirs = trained(make, 128, channels)
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    found = recognise(read_pickled(tmp_path / "net.pth"), "net.pth")
    assert found.settings.items() >= settings.items()
    x = torch.rand(2, channels, 128, 128) * 2 - 1
    with torch.no_grad():
        right, made = theirs(x.clone()), ours(found)(x)
    assert right.std() > 1e-3, "or it would be easy"
    torch.testing.assert_close(made, right, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(ours(found).double()(x.double()), theirs.double()(x.double()), rtol=0, atol=1e-9)


def same(network: Network, theirs: nn.Module, channels: int = 3) -> None:
    x = torch.rand(2, channels, 64, 64) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(ours(network)(x), theirs.eval()(x.clone()), rtol=1e-5, atol=1e-6)


def test_wrappers_and_what_old_versions_kept_are_no_part_of_a_network() -> None:
    """DataParallel, running statistics of instance norms before torch 0.4, and batch norms without a count."""
    theirs = trained(lambda: OfficialUNet(3, 3, 6, 2, INSTANCE))
    old = trained(lambda: OfficialUNet(3, 3, 6, 2, OLD_INSTANCE)).state_dict()
    assert any("running_mean" in name for name in old) and any("num_batches" in name for name in old)
    same(recognise({f"module.{name}": value for name, value in {**old, **theirs.state_dict()}.items()}), theirs)
    batch = trained(lambda: OfficialPatchGAN(3, 4, 3, BATCH))
    uncounted = {name: value for name, value in batch.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert len(uncounted) < len(batch.state_dict())
    same(recognise(uncounted), batch)


def test_spectral_norm_may_be_as_torch_had_it_or_has_it() -> None:
    """Before 1.0 it kept one vector, then two, and today they have other names."""
    theirs = trained(lambda: OfficialPatchGAN(3, 4, 2, NONE, spectral=True)).train()
    for _ in range(100):  # until the vectors are the singular ones
        theirs(torch.zeros(1, 3, 32, 32))
    state = theirs.state_dict()
    assert any(name.endswith("weight_v") for name in state)
    same(recognise(state), theirs)
    found = recognise({name: value for name, value in state.items() if not name.endswith("weight_v")})
    for name, value in recognise(state).weights.items():
        torch.testing.assert_close(found.weights[name], value, rtol=1e-3, atol=1e-3)
    again = recognise(ours_as_theirs(found))
    assert again.settings["spectral"] and again.weights.keys() == found.weights.keys()


def ours_as_theirs(found: Network) -> dict[str, torch.Tensor]:
    """A spectral PatchGAN with torch's names of today in the official places."""
    places = {"layers.0.0": "model.0", "layers.1.0": "model.2", "layers.2.0": "model.5", "layers.3": "model.8"}
    return {
        name.replace(ours_name, theirs_name, 1): value
        for name, value in found.weights.items()
        for ours_name, theirs_name in places.items()
        if name.startswith(f"{ours_name}.") and name not in ("layers.1.0.bias", "layers.2.0.bias")
    }


def test_a_bias_before_a_batch_norm_moves_its_mean() -> None:
    """A variant of many repositories: use_bias is True although the norm is batch norm."""

    def make() -> nn.Module:
        network = OfficialPatchGAN(3, 4, 3, BATCH)
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and module.bias is None:
                module.bias = nn.Parameter(torch.zeros(module.out_channels))
        return network

    theirs = trained(make)
    assert recognise(theirs.state_dict()).settings["norm"] == "batch"
    same(recognise(theirs.state_dict()), theirs)


def test_a_batch_norm_can_normalize_by_the_pictures_own_statistics() -> None:
    """What the official test.py computes without --eval, but for its dropout."""
    theirs = trained(lambda: OfficialUNet(3, 3, 6, 2, BATCH, drop=False))
    found = recognise(theirs.state_dict(), norm="instance")
    x = torch.rand(1, 3, 128, 128) * 2 - 1
    with torch.no_grad():
        made, right, in_evaluation = ours(found)(x), theirs.train()(x.clone()), theirs.eval()(x.clone())
    torch.testing.assert_close(made, right, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(right, in_evaluation, atol=1e-2)


def state(make: Callable[[], nn.Module]) -> dict[str, torch.Tensor]:
    return make().state_dict()


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (
            lambda: state(lambda: NectarUNet(3, 2, 3, "Transposed", residual=True)),
            "1 x 1 shortcuts (initial_down.resid",
        ),
        (
            lambda: {"sequence.1.weight": torch.zeros(4, 3, 7, 7)},
            "is NectarGAN's ResNet, whose blocks are 1 x 1, 3 x 3",
        ),
        (lambda: {"fc.weight": torch.zeros(3, 3)}, "no network of the official pix2pix and CycleGAN code or of Necta"),
        (dict, "its names begin as 'nothing'"),
        (lambda: state(lambda: OfficialPatchGAN(3, 2, 5, BATCH)), "is a PatchGAN of 7 layers: Treadle's have 3 to 6"),
        (lambda: state(lambda: OfficialResNet(3, 3, 2, 0, BATCH)), "is a ResNet without residual blocks"),
        (
            lambda: state(lambda: OfficialUNet(3, 3, 5, 2, BATCH)) | {"model.attention.weight": torch.zeros(2, 2)},
            "looks like the official U-Net, and has besides 'model.attention.weight' (2, 2): it is a variant",
        ),
        (
            lambda: state(lambda: OfficialResNet(3, 3, 2, 1, BATCH)) | {"model.11.weight": torch.zeros(4, 8, 3, 3)},
            "doubles by interpolation (model.11), in a way that Treadle has not",
        ),
        (
            lambda: state(lambda: OfficialUNet(3, 3, 5, 2, BATCH)) | {"model.model.0.weight": torch.zeros(2, 3, 3, 3)},
            "model.model.0.weight is (2, 3, 3, 3), and a 4 x 4 convolution was expected there",
        ),
        (
            lambda: {
                name: value
                for name, value in state(lambda: OfficialUNet(3, 3, 5, 2, BATCH)).items()
                if name != "model.model.3.weight"
            },
            "has no model.model.3.weight: it is not whole, or of another version",
        ),
    ],
)
def test_what_ours_cannot_be_is_refused_with_what_is_in_the_way(
    tensors: Callable[[], dict[str, torch.Tensor]], said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        recognise(tensors(), "net.pth")
    assert said in str(caught.value) and str(caught.value).startswith("net.pth") and "\n" not in str(caught.value)


class Evil:
    """What a file can hold that is no tensor: pickle would call this."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("called"),)


def test_files_are_read_as_weights_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights = {"a": torch.ones(2)}
    optimizer = torch.optim.Adam([nn.Parameter(torch.ones(2))])
    torch.save({"state_dict": weights, "optimizer": optimizer.state_dict()}, "epoch4_netG.pth.tar")
    assert torch.equal(read_pickled("epoch4_netG.pth.tar")["a"], weights["a"])
    torch.save(weights, "old.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(read_pickled(tmp_path / "old.pth")["a"], weights["a"])
    torch.save({"a": Evil()}, "evil.pth")
    torch.save(nn.Linear(2, 2), "whole.pth")
    torch.save({"a": 1}, "number.pth")
    torch.save([torch.ones(1)], "list.pth")
    Path("text.pth").write_text("no weights")
    Path("empty.pth").write_bytes(b"")
    for name, said in {
        "evil.pth": "cannot be read as weights alone",
        "whole.pth": "cannot be read as weights alone",
        "text.pth": "cannot be read as weights alone",
        "empty.pth": "cannot be read as weights alone",
        "number.pth": "holds no state dict: save the network's state_dict()",
        "list.pth": "holds no state dict",
        "evli.pth": "no file evli.pth; did you mean 'evil.pth'?",
    }.items():
        with pytest.raises(UsageError) as caught:
            read_pickled(name)
        assert said in str(caught.value) and "\n" not in str(caught.value), name
    assert not Path("called").exists()
