"""Weights of another training in a module: under other names, or a part of them; what does not fit is named at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import treadle
from treadle.engine.load_weights import Loaded
from treadle.errors import UsageError
from treadle.testing import Line, line_data


def net(inputs: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


def weights(module: nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
    return {prefix + name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(first: nn.Module, second: nn.Module, *names: str) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return all(torch.equal(a[name], b[name]) for name in names or a)


@pytest.mark.parametrize("form", ["file", "dict"])
def test_all_of_it_in_place(tmp_path: Path, form: str) -> None:
    source, target = net(), net()
    save_file(weights(source), tmp_path / "net.safetensors")
    before = list(target.parameters())
    loaded = treadle.load_weights(target, tmp_path / "net.safetensors" if form == "file" else weights(source))
    assert loaded == Loaded(tuple(target.state_dict()), (), ()) and same(source, target)
    assert all(a is b for a, b in zip(before, target.parameters(), strict=True))


@pytest.mark.parametrize(
    ("prefix", "mapping"), [("module.", {"module.": ""}), ("a.b.", {"a.": "", "a.b.": ""}), ("", {"": ""})]
)
def test_names_are_mapped_by_how_they_begin(prefix: str, mapping: dict[str, str | None]) -> None:
    source, target = net(), net()
    if "a." in mapping:
        given = weights(source, prefix) | {"a.c": torch.ones(1)}
        assert treadle.load_weights(target, given, mapping=mapping, strict=False).unexpected == ("c",)
    else:
        treadle.load_weights(target, weights(source, prefix), mapping=mapping)
    assert same(source, target)
    whole = nn.ModuleDict({"net": net()})
    treadle.load_weights(whole, weights(source), mapping={"": "net."})
    assert same(source, whole["net"])


def test_a_part_of_it(tmp_path: Path) -> None:
    source, target = net(), net()
    head = target[2].weight.detach().clone()
    loaded = treadle.load_weights(target, weights(source), mapping={"2.": None}, strict=False)
    assert loaded.missing == ("2.weight", "2.bias") and loaded.unexpected == ()
    assert torch.equal(target[2].weight, head) and same(source, target, "0.weight", "1.running_mean")


def test_precision_and_tied_weights() -> None:
    source, target = net().half(), net()
    treadle.load_weights(target, weights(source))
    assert target[0].weight.dtype == torch.float32 and torch.equal(target[0].weight.half(), source[0].weight)
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    given = {name: tensor for name, tensor in weights(tied).items() if name != "1.weight"}  # as safetensors keeps it
    assert treadle.load_weights(tied, given).missing == ()


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({"0.bias": None}, {}, "missing '0.bias' (take what fits with strict=False)"),
        (
            {"x": torch.ones(1)},
            {},
            "unexpected 'x' (rename with mapping={'old.': 'new.'}, or leave out by map",
        ),
        (
            {"0.weight": torch.ones(3, 5)},
            {},
            "of another shape '0.weight' ((3, 5) there, (3, 2) in the module) (ren",
        ),
        ({"0.weight": torch.ones(3, 5)}, {"strict": False}, "of another shape '0.weight'"),
        ({"0.weight": torch.ones(3, 2) * 1j}, {}, "'0.weight' (torch.complex64 there, torch.float32 in the module)"),
        ({"1.num_batches_tracked": torch.tensor(0.5)}, {}, "(torch.float32 there, torch.int64 in the module)"),
        ({"0.bias": None, "a.0.bias": torch.ones(3)}, {}, "(mapping={'a.': ''}, or leave out"),
        (
            {},
            {"mapping": {"model.": ""}},
            "mapping has 'model.', and no name in the given weights begins so: it has '",
        ),
        ({}, {"mapping": {"0.": "2."}}, "mapping makes '2.weight' of both '0.weight' and '2.weight' in"),
        ({"state_dict": {"0.bias": torch.ones(3)}}, {}, "is no tensor but dict: give that alone, source['state_dict']"),
        ({"epoch": 3}, {}, "'epoch' in the given weights is no tensor but int: leave it out"),
    ],
)
def test_what_does_not_fit_is_one_line_and_changes_nothing(change: Any, options: Any, said: str) -> None:
    target = net()
    before = weights(target)
    given = {name: value for name, value in {**weights(net()), **change}.items() if value is not None}
    with pytest.raises(UsageError) as caught:
        treadle.load_weights(target, given, **options)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in target.state_dict().items())


def test_all_faults_are_said_at_once() -> None:
    given = {**weights(net(5), "old."), "old.2.weight": torch.ones(2, 2)}
    with pytest.raises(UsageError) as caught:
        treadle.load_weights(net(), given)
    assert str(caught.value) == (
        "the given weights and Sequential do not fit together: missing '0.weight', '0.bias', '1.weight', '1.bias' "
        "and 5 more; unexpected 'old.0.weight', 'old.0.bias', 'old.1.weight', 'old.1.bias' and 5 more "
        "(mapping={'old.': ''}, or leave out by mapping to None)"
    )
    with pytest.raises(UsageError, match=r"of another shape '0.weight' .*, '2.weight' .* \(rename"):
        treadle.load_weights(net(), given, mapping={"old.": ""})
    with pytest.raises(
        UsageError, match=r"missing '0.weight', .* \(mapping={'old.': ''}, or leave out by mapping to None\)"
    ):  # nothing at all fits: that is no part of it
        treadle.load_weights(net(), given, strict=False)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    torch.save(weights(net()), tmp_path / "net.pth")
    with pytest.raises(UsageError, match=r"net.pth is a pickled file, .* torch.load\('.*net.pth', weights_only=True\)"):
        treadle.load_weights(net(), tmp_path / "net.pth")
    treadle.load_weights(net(), torch.load(tmp_path / "net.pth", weights_only=True))
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(UsageError, match=r"bad.safetensors cannot be read as safetensors: "):
        treadle.load_weights(net(), tmp_path / "bad.safetensors")
    with pytest.raises(UsageError, match=r"no file .*bat.safetensors; did you mean '.*bad.safetensors'\?: expected"):
        treadle.load_weights(net(), tmp_path / "bat.safetensors")
    with pytest.raises(UsageError, match=r"'weight', 'bias' of LazyLinear has no shape yet: give the module a batch"):
        treadle.load_weights(nn.LazyLinear(2), weights(nn.Linear(2, 2)))


def test_in_setup_from_another_run_and_through_a_resume(tmp_path: Path) -> None:
    data = {"data": line_data(8), "validation_data": line_data(4), "batch_size": 4}
    first = Line(**data, max_epochs=1, run_dir=tmp_path / "first")
    first.train()

    class Tuned(Line):
        def setup(self) -> None:
            super().setup()
            best = tmp_path / "first" / "v001" / "best_model" / "weights.safetensors"
            treadle.load_weights(self.model, best, mapping={"model.": ""})

    settings: Any = {**data, "max_epochs": 2, "save_every": "1 step"}
    tuned = Tuned(**settings, run_dir=tmp_path / "tuned")
    assert torch.equal(tuned.model.weight, first.model.weight)
    tuned.iterate()
    tuned.close()
    resumed = Tuned(**settings, run_dir=tmp_path / "tuned", resume=True)
    assert (
        resumed.progress.step == 1
        and resumed.train().digest == Tuned(**settings, run_dir=tmp_path / "w").train().digest
    )
