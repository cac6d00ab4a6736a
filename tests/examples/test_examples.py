"""The examples are complete programs: they run, they are short, and what they claim holds."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

from tests.warm.python import python

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def load(name: str) -> ModuleType:
    """The example as a module, without running its main program."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, *arguments: str, directory: Path) -> str:
    """What the example prints, run as a program in an empty directory, on one core and without a GPU."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONIOENCODING": "utf-8"}
    command = [python(), str(ROOT / "examples" / f"{name}.py"), *arguments]
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=250
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_examples_are_those_that_the_readme_lists() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {path.name for path in EXAMPLES} == set(re.findall(r"\(examples/(\w+\.py)\)", readme))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_no_example_is_longer_than_80_lines(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 80
    assert lines[0].startswith('"""'), "an example begins by saying what it shows"


def test_line_is_the_readme_example_and_finds_the_line(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = next(block for block in re.findall(r"```python\n(.*?)```", readme, re.S) if "class Line(Trainer)" in block)
    shown = ast.parse(block).body
    program = ast.parse((ROOT / "examples" / "line.py").read_text(encoding="utf-8")).body[1:]  # without the docstring
    assert [ast.dump(node) for node in program[: len(shown)]] == [ast.dump(node) for node in shown]
    assert len(block.splitlines()) <= 20

    told = run("line", directory=tmp_path)
    assert "finished after 20 epochs, 160 steps" in told
    assert "y = 3.000 x + 1.000" in told
    assert list(tmp_path.iterdir()) == [], "it writes nothing to disk"


def test_gan_2d_covers_all_modes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = load("gan_2d")
    share = example.main(steps=1000, out=str(tmp_path / "ring.png"))
    assert (share > 0.5 / 8).all(), share
    assert share.sum() > 0.6
    assert Image.open(tmp_path / "ring.png").size == (512, 256)
    assert "8 of 8 modes covered" in capsys.readouterr().out


def test_gan_2d_has_two_schedules_and_a_scheduled_weight() -> None:
    example = load("gan_2d")
    trainer = example.RingGAN(data=torch.randn(512, 2), batch_size=64, max_steps=40, log_every="10 steps")
    frozen = [p.clone() for p in trainer.generator.parameters()]
    seen = []
    while trainer.iterate():
        seen.append((trainer.g_optimizer.param_groups[0]["lr"], trainer.d_optimizer.param_groups[0]["lr"]))
    g_rates, d_rates = zip(*seen, strict=True)
    assert g_rates[:20] == (1e-3,) * 20 and g_rates[-1] == pytest.approx(1e-3 / 20)
    assert d_rates[0] < d_rates[10], "the discriminator warms up"
    assert trainer.updates(trainer.g_optimizer) == trainer.updates(trainer.d_optimizer) == 40
    weights = [entry.weight for entry in trainer.objective.history["slope"]]
    assert weights[0] > weights[1] == pytest.approx(0.2 + (0.01 - 0.2) * 19 / 20)
    assert weights[2:] == [0.01, 0.01]
    assert all(not torch.equal(a, b) for a, b in zip(frozen, trainer.generator.parameters(), strict=True))


def test_growing_gaussians_fit_better_for_their_growth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load("growing_gaussians").main(epochs=40, out=str(tmp_path / "sunset.png"))
    told = re.findall(r"(\d+) Gaussians, PSNR ([\d.]+) dB", capsys.readouterr().out)
    (few, without), (many, grown) = [(int(n), float(psnr)) for n, psnr in told]
    assert few == 24 and many > 2 * few
    assert grown > without + 2.0
    assert Image.open(tmp_path / "sunset.png").size == (864, 288)


def test_growing_gaussians_keep_adams_moments() -> None:
    example = load("growing_gaussians")
    picture, places = example.sunset()
    trainer = example.Cloud(
        data=(places.flatten(0, 1), picture.flatten(0, 1)), batch_size=1024, max_epochs=70, device="cpu"
    )
    for _ in range(20):
        trainer.iterate()
    with torch.no_grad():
        trainer.rgb[[3, 7]] = 0.01  # two have faded
    alive = torch.tensor([i for i in range(24) if i not in (3, 7)])
    parents = trainer.pull[alive].argsort(descending=True)[:12]
    parameters = {"xy": trainer.xy, "size": trainer.size, "rgb": trainer.rgb}
    before = {name: {k: v.clone() for k, v in trainer.optimizer.state[p].items()} for name, p in parameters.items()}

    trainer.grow()

    for name, parameter in parameters.items():
        assert parameter is getattr(trainer, name), "the trainer's own references stay valid"
        state = trainer.optimizer.state[parameter]
        for moment in ("exp_avg", "exp_avg_sq"):
            kept = before[name][moment][alive]
            assert before[name][moment].abs().sum() > 0
            assert torch.equal(state[moment], torch.cat([kept, kept[parents]]))
        assert torch.equal(state["step"], before[name]["step"])
        assert len(parameter) == 22 + 12
    assert len(trainer.pull) == 34
    assert (trainer.pull[22:] == 0).all()
    assert trainer.iterate(), "and the run goes on"


def test_own_loop_ends_with_the_weights_of_train_and_journals_its_edit(capsys: pytest.CaptureFixture[str]) -> None:
    driven, plain, edited = load("own_loop").main()
    told = capsys.readouterr().out
    assert driven.digest() == plain.digest(), "not only the weights: the whole state"
    assert [entry["event"] for entry in driven.journal if entry["event"] in ("pause", "continue")] == [
        "pause",
        "continue",
    ]
    assert [entry["step"] for entry in driven.journal if entry["event"] == "pause"] == [240]
    (edit,) = [entry for entry in edited.journal if entry["event"] == "edit"]
    assert (edit["what"], edit["before"], edit["after"]) == ("lr_multiplier", 1.0, 0.1)
    assert edit["step"] >= 100
    assert not torch.equal(edited.model[0].weight, plain.model[0].weight)
    assert told.count("|") == 2 * 8, "it has redrawn eight times"
    assert "bit for bit" in told and "learning rate: 0.01, then 0.001" in told


def test_plain_loop_is_short_learns_and_goes_on_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len((ROOT / "examples" / "plain_loop.py").read_text(encoding="utf-8").splitlines()) <= 60
    example = load("plain_loop")
    digest = example.main(tmp_path)
    assert re.search(r"^480 steps, loss 0\.0\d+, digest " + digest, capsys.readouterr().out)
    shutil.rmtree(tmp_path / "step-00000480")
    assert example.main(tmp_path) == digest
    assert "going on after step 450" in capsys.readouterr().out
    assert example.main(tmp_path) == digest


@pytest.mark.parametrize(("package", "parts"), [("lightning", "bumps"), ("accelerate", "codes")])
@pytest.mark.filterwarnings("ignore")  # theirs
def test_inside_other_trainers_rows_grow_and_the_state_is_exact(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], package: str, parts: str
) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'treadle[bench]'")
    example = load(f"inside_{package}")
    digest = example.main(tmp_path / "whole", epochs=7)
    steps, rows = re.findall(rf"(\d+) steps, (\d+) {parts}, digest {digest}", capsys.readouterr().out)[0]
    saved = sorted(tmp_path.glob("whole/step-*"))
    assert saved[-1].name == f"step-{int(steps):08d}"
    smaller = []
    for last in saved[-2::-1]:
        shutil.copytree(last, tmp_path / last.name / last.name)
        assert example.main(tmp_path / last.name, epochs=7) == digest
        step, before = re.findall(rf"after step (\d+) with (\d+) {parts}", capsys.readouterr().out)[0]
        assert int(step) == int(last.name[5:])
        smaller.append(int(before) < int(rows))
    assert smaller == [False, True], "grown since, in the process that went on"


def test_own_loop_runs_as_a_program(tmp_path: Path) -> None:
    assert "paused" in run("own_loop", directory=tmp_path)
