"""Runs that begin with the weights of another run, or of a file: which go where, what is refused, what is noticed."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import treadle
from treadle.checkpoint.store import read_checkpoint
from treadle.engine.ema import EMA
from treadle.engine.settings import StartSettings, TrainerConfig
from treadle.errors import DataChanged, UsageError
from treadle.recipes.actions import branch, recipe_of_run, replay
from treadle.recipes.registry import Recipe
from treadle.runs.best import read_best
from treadle.runs.models import find_model
from treadle.runs.run import read_config, read_journal
from treadle.testing import check_resume, line_data

X, Y = line_data()


@dataclass(kw_only=True)
class PairConfig(StartSettings, TrainerConfig):
    """Settings of `Pair`."""

    inputs: int = 1
    """Channels of what it sees."""


class Pair(treadle.Trainer):
    """Two networks, one of which has an average."""

    Config = PairConfig

    def setup(self) -> None:
        self.first = nn.Sequential(nn.Linear(self.config.inputs, 4), nn.Tanh(), nn.Linear(4, 1))
        self.second = nn.Linear(1, 1)
        self.average = EMA(self.first, 0.9)
        self.optimizer = torch.optim.Adam([*self.first.parameters(), *self.second.parameters()], lr=0.01)

    def step(self, batch: Any) -> Any:
        x, y = batch
        loss = (self.second(self.first(x.expand(-1, self.config.inputs))) - y).square().mean()
        self.minimize(loss)
        return loss

    def validation_step(self, batch: Any) -> Any:
        x, y = batch
        return {"loss": (self.second(self.first(x.expand(-1, self.config.inputs))) - y).square().mean()}


def pair(**settings: Any) -> Pair:
    return Pair(data=(X, Y), validation_data=(X, Y), **{"max_steps": 4, "save_every": "1 step"} | settings)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of another seed."""
    path = tmp_path_factory.mktemp("source") / "v001"
    with pair(seed=7, run_dir=path) as trainer:
        trainer.train()
    return path


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(module: nn.Module, other: Any) -> bool:
    state = module.state_dict()
    return state.keys() == dict(other).keys() and all(torch.equal(state[name], other[name]) for name in state)


def test_a_run_gives_each_network_the_weights_of_its_name_and_averages_begin_with_them(source: Path) -> None:
    best = read_best(source)
    trainer = pair(init=str(source))
    assert equal(trainer.first, best.of("first")) and equal(trainer.second, best.of("second"))
    with trainer.evaluating():
        assert equal(trainer.first, best.of("first")), "the average would have forgotten them only slowly"
    assert not equal(pair().second, best.of("second"))


def test_one_network_from_a_run_and_another_from_a_file(source: Path, tmp_path: Path) -> None:
    best = read_best(source)
    save_file(best.of("first"), tmp_path / "first.safetensors")
    trainer = pair(init={"first": str(tmp_path / "first.safetensors"), "second": str(source)})
    assert equal(trainer.first, best.of("first")) and equal(trainer.second, best.of("second"))
    alone = pair(init={"first": str(source / "best_model" / "weights.safetensors")})
    assert equal(alone.first, best.of("first")) and equal(alone.second, weights(pair().second)), "drawn as ever"
    save_file({"body.weight": torch.full((1, 1), 5.0), "body.bias": torch.zeros(1)}, tmp_path / "all.safetensors")
    other = pair(init={"second": f"{tmp_path / 'all.safetensors'}:body"})
    assert other.second.weight.item() == 5.0


def test_a_run_may_be_asked_for_another_of_its_models(source: Path) -> None:
    final, third = (find_model(source, at) for at in ("final", 3))
    assert equal(pair(init=f"{source}@3").first, third.of("first"))
    assert equal(pair(init={"second": f"{source}@3:second"}).second, third.of("second"))
    assert not equal(pair(init=f"{source}@final").first, third.of("first")) and equal(
        pair(init=f"{source}@final").first, final.of("first")
    )
    with pytest.raises(UsageError, match=r"init: .* keeps no model of step 77: there are "):
        pair(init=f"{source}@77")
    with pytest.raises(UsageError, match=r"weights.safetensors is a file, which has one model: leave out @best"):
        pair(init=f"{source}/best_model/weights.safetensors@best")


def test_names_are_mapped_and_left_out(source: Path, tmp_path: Path) -> None:
    best = read_best(source).of("first")
    save_file({f"module.{name}": value for name, value in best.items()}, tmp_path / "first.safetensors")
    file = str(tmp_path / "first.safetensors")
    assert equal(pair(init={"first": file}, init_mapping={"first.module.": "first."}).first, best)
    assert equal(pair(init=file, init_mapping={"module.": "first."}).first, best)
    trainer = pair(
        init={"first": file}, init_mapping={"first.module.": "first.", "first.module.2.": None}, init_partial=True
    )
    own = pair().first
    assert torch.equal(trainer.first[0].weight, best["0.weight"]) and torch.equal(
        trainer.first[2].weight, own[2].weight
    )


def test_what_has_another_shape_is_refused_with_its_name_and_a_part_can_be_taken(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        pair(init=str(source), inputs=2)
    assert str(caught.value) == (
        f"{source} and the trainer do not fit together: of another shape 'first.0.weight' ((4, 1) there, (4, 2) in the "
        "module) (rename with init_mapping={'old.': 'new.'}, or leave out by mapping to null, or take what fits with "
        "init_partial=true)"
    )
    trainer = pair(init=str(source), inputs=2, init_partial=True)
    best = read_best(source)
    assert torch.equal(trainer.first[2].weight, best.of("first")["2.weight"]) and equal(
        trainer.second, best.of("second")
    )
    assert torch.equal(trainer.first[0].weight, pair(inputs=2).first[0].weight)
    assert capsys.readouterr().err == "treadle: not in init, so begun anew: first.0.weight\n"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"init": "SOURCE/v002"}, "init: no run or file SOURCE/v002"),
        ({"init": {"frist": "SOURCE/v001"}}, "init.frist: the trainer has no network of that name; did you mean"),
        ({"init": {"first": "SOURCE/v001:frist"}}, "init.first: SOURCE/v001:frist has no 'frist'; did you mean"),
        ({"init": {}}, "init is {}: expected a run or file, or one for each network named"),
        ({"init": "SOURCE/empty"}, "init: SOURCE/empty is not a run: it has no config.yaml"),
        ({"init_partial": True}, "init_partial is True: expected false without init"),
        ({"init_mapping": {"a.": "b."}}, "init_mapping is {'a.': 'b.'}: expected none without init"),
        ({"init": "SOURCE/v001", "init_mapping": {"fist.": "first."}}, "mapping has 'fist.', and no name in"),
        ({"init": "SOURCE/net.pth"}, "net.pth is pickled, which can hold code: treadle import"),
        ({"init": "SOURCE/bad.safetensors"}, "bad.safetensors cannot be read as safetensors"),
        ({"init": "SOURCE/lone.safetensors"}, "its names begin as '0.bias'; say whose they are (init.first=SOURCE"),
        ({"init": {"first": "SOURCE/lone.safetensors"}}, "missing 'first.2.weight', 'first.2.bias' ("),
        ({"init": {"second": "SOURCE/lone.safetensors"}}, "missing 'second.weight', 'second.bias'; unexpected"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_before_a_run_is_made(
    source: Path, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    folder = source.parent
    (folder / "net.pth").write_bytes(b"x")
    (folder / "bad.safetensors").write_bytes(b"x")
    save_file({"0.weight": torch.zeros(4, 1), "0.bias": torch.zeros(4)}, folder / "lone.safetensors")
    given = json.loads(json.dumps(settings).replace("SOURCE", str(folder)))
    (folder / "empty").mkdir(exist_ok=True)
    with pytest.raises(UsageError) as caught:
        pair(run_dir=tmp_path / "run", **given)
    assert said.replace("SOURCE", str(folder)) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def began(source: Path, run: Path, **settings: Any) -> Recipe:
    """A run at `run` that began with the weights of `source`, and what makes its trainer again."""
    with pair(init=str(source), run_dir=run, **settings) as trainer:
        trainer.train()
    return recipe_of_run(run, Pair, (X, Y), (X, Y))


def test_it_resumes_and_verifies_and_its_files_say_how_it_began(source: Path, tmp_path: Path) -> None:
    check_resume(lambda **given: pair(init=str(source), **given), tmp_path / "check", stops=(1,))
    recipe = began(source, tmp_path / "v001")
    assert read_config(tmp_path / "v001")["config"]["init"] == str(source)
    start = read_journal(tmp_path / "v001")[0]
    assert (start["init"]["tensors"], start["init"]["anew"]) == (6, []) and len(start["init"]["sha256"]) == 64
    verdicts = [replay(tmp_path / "v001", recipe, step) for step in (0, 3)]
    assert [verdict.compared for verdict in verdicts] == [[2, 3, 4], [4]] and all(each.holds for each in verdicts)
    state = read_checkpoint(tmp_path / "v001" / "checkpoints" / "step-00000002")
    assert state.values["data"]["init"] == start["init"]["sha256"]


def test_a_resume_goes_on_without_the_source_and_notices_other_weights(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "source" / "v001"
    shutil.copytree(source, copy)
    recipe = began(copy, tmp_path / "v001")
    shutil.rmtree(copy)
    with recipe.with_settings({"max_steps": 5}).build(run_dir=tmp_path / "v001", resume=True) as trainer:
        assert trainer.train().step == 5
    assert capsys.readouterr().err == ""
    assert replay(tmp_path / "v001", recipe.with_settings({"max_steps": 5}), 4).holds
    with pair(seed=8, run_dir=copy) as trainer:
        trainer.train()
    recipe = recipe_of_run(tmp_path / "v001", Pair, (X, Y), (X, Y)).with_settings({"max_steps": 6})
    with recipe.build(run_dir=tmp_path / "v001", resume=True) as trainer:
        assert trainer.train().step == 6
    assert f"init ({copy}) names other weights than those that the run began with" in capsys.readouterr().err
    assert [entry["event"] for entry in read_journal(tmp_path / "v001")].count("init changed") == 1


def test_a_folder_of_runs_is_the_newest_of_them_on_the_day_that_it_is_named(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs"
    shutil.copytree(source, folder / "v001")
    given = {"init": {"first": f"{folder}:first"}, "run_dir": folder}
    with pair(**given) as trainer:
        trainer.train()
        assert read_config(trainer.run.path)["config"]["init"] == {"first": f"{folder / 'v001'}:first"}
    with pair(**given, resume="auto", max_steps=5) as trainer:
        assert trainer.run.path == folder / "v003", "the newest had finished"
    with pair(**given | {"run_dir": folder / "v002"}, resume=True) as trainer:
        assert trainer.progress.step == 4
    assert capsys.readouterr().err == ""
    with pytest.raises(UsageError, match="a resume cannot change init"):
        pair(init={"first": str(tmp_path)}, run_dir=folder / "v002", resume=True)


def test_other_weights_are_no_beginning_for_a_run_that_has_no_checkpoint(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "source" / "v001"
    shutil.copytree(source, copy)
    recipe = began(copy, tmp_path / "v001")
    shutil.rmtree(tmp_path / "v001" / "checkpoints")
    with recipe.build(run_dir=tmp_path / "v001", resume=True) as trainer:
        assert trainer.progress.step == 0 and equal(trainer.second, read_best(source).of("second"))
    shutil.rmtree(copy)
    with pair(seed=8, run_dir=copy) as trainer:
        trainer.train()
    with pytest.raises(DataChanged, match="the weights that init names are not what they were"):
        recipe.build(run_dir=tmp_path / "v001", resume=True)


def test_a_resume_and_a_fork_cannot_begin_otherwise(source: Path, tmp_path: Path) -> None:
    recipe = began(source, tmp_path / "v001")
    with pytest.raises(UsageError, match="a resume cannot change init"):
        recipe.with_settings({"init": None}).build(run_dir=tmp_path / "v001", resume=True)
    other = recipe.with_settings({"init": str(tmp_path)})
    with pytest.raises(UsageError, match="init: a fork goes on with the weights of step 2: begin a new run"):
        branch(tmp_path / "v001", recipe, other, 2, tmp_path / "fork")
    assert not (tmp_path / "fork").exists()
