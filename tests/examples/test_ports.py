"""The ports: programs that people have elsewhere, in at most 100 lines each, that learn what they are to learn."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

PORTS = sorted((Path(__file__).parents[2] / "examples" / "ports").glob("*.py"))


def load(name: str) -> ModuleType:
    """The port as a module, without running its main program."""
    (path,) = (path for path in PORTS if path.stem == name)
    spec = importlib.util.spec_from_file_location(f"port_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", PORTS, ids=lambda path: path.stem)
def test_it_has_at_most_100_lines_and_says_what_it_is(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 100
    assert lines[0].startswith('"""')


def test_the_pages_list_every_port() -> None:
    index = (Path(__file__).parents[2] / "docs" / "index.md").read_text(encoding="utf-8")
    assert {path.name for path in PORTS} == set(re.findall(r"\(\.\./examples/ports/(\w+\.py)\)", index))


def test_the_gpt_does_better_on_unread_text_than_counting_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    port = load("char_gpt")
    learned, held_out = port.windows(port.LICENCE.read_text())
    assert len(learned) > 2000 and learned.shape[1] == port.CONTEXT + 1
    pairs = torch.full((port.CHARACTERS, port.CHARACTERS), 0.1)
    text = torch.tensor(list(" ".join(port.LICENCE.read_text().split()).encode()))[: len(learned) * 4]
    pairs.index_put_((text[:-1], text[1:]), torch.ones(len(text) - 1), accumulate=True)
    counted = -(pairs / pairs.sum(1, keepdim=True))[held_out[:, :-1], held_out[:, 1:]].log().mean()

    trainer = port.main(max_steps=150, batch_size=24)

    assert trainer.validation_metrics["loss"] < counted - 0.05
    assert capsys.readouterr().out.startswith("Subject to the terms ")


def test_the_gpt_sees_nothing_that_comes_later() -> None:
    port = load("char_gpt")
    model = port.GPT().eval()
    codes = torch.randint(port.CHARACTERS, (1, 20))
    other = codes.clone()
    other[:, 12:] = 0
    assert torch.equal(model(codes)[:, :12], model(other)[:, :12])
    assert not torch.equal(model(codes)[:, 12:], model(other)[:, 12:])


def test_ppo_learns_to_catch() -> None:
    port = load("ppo")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = port.Catch.begin(500)
        caught = over = 0
        for _ in range(2 * port.HEIGHT):
            state, reward, ended = port.Catch.move(state, torch.randint(3, (500,)))
            caught, over = caught + int((reward > 0).sum()), over + int(ended.sum())
    assert over == 1000 and 0.2 < caught / over < 0.45, "what no thought comes to"
    assert port.main(rounds=16).metrics["caught"] > 0.9


def test_ppo_plays_anew_after_its_passes() -> None:
    port = load("ppo")
    trainer = port.PPO(data=torch.arange(port.GAMES * port.HORIZON), batch_size=512, max_epochs=5, device="cpu")
    rounds = []
    while trainer.iterate():
        rounds.append(trainer.moves["advantage"].clone())
    changed = [number for number in range(1, len(rounds)) if not torch.equal(rounds[number - 1], rounds[number])]
    assert changed == [2 * port.PASSES], "of two steps an epoch"
    assert trainer.updates() == 10


def test_byol_tells_shapes_that_it_has_no_labels_of(monkeypatch: pytest.MonkeyPatch) -> None:
    port = load("byol")
    before, after = port.main()
    assert 0.35 < before < 0.55 and after > before + 0.07, "chance is 0.2"
    monkeypatch.setattr(port.BYOL, "minimize", lambda *_: None)
    before, after = port.main(max_steps=20)
    assert after < before + 0.02, "it is the training that tells them, not the statistics of BatchNorm"


def test_the_lstm_comes_close_to_the_grammar() -> None:
    perplexity, least = load("word_lstm").main(max_epochs=3)
    assert 1.0 < least < perplexity < 1.15 * least, "guessing words by how frequent they are comes to 13"


def test_the_lstm_carries_its_memory_from_window_to_window_and_cuts_its_rate() -> None:
    port = load("word_lstm")
    data, _ = port.text(1600, seed=1)
    trainer = port.WordLSTM(
        data=data, validation_data=port.text(320, seed=2)[0], batch_size=port.WINDOW, shuffle=False, max_epochs=1
    )
    trainer.iterate()
    first = trainer.memory["train"][0].clone()
    assert not first.requires_grad
    with torch.no_grad():
        fresh = trainer.lstm(trainer.ends[0](data[0][port.WINDOW : 2 * port.WINDOW]))[1][0]
    trainer.iterate()
    assert not torch.equal(trainer.memory["train"][0], fresh)
    for _ in range(3):
        trainer.post_validation({"loss": 9.0})
    assert trainer.optimizer.param_groups[0]["lr"] < 5.0
