"""`treadle verify`: exit code 0 where a run can be taken again to the bit, 1 naming where it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from treadle.files import hash_file

RUN = Path("runs/line/v001")


@pytest.fixture
def trained(treadle: Any, line: None) -> None:
    assert treadle("train", "line", "--save-every", "5 steps", "--keep-checkpoints", "9") == 0


def test_it_holds(treadle: Any, trained: None) -> None:
    files = {path: path.read_bytes() for path in RUN.rglob("*") if path.is_file()}
    assert treadle("verify", "runs/line") == 0
    assert treadle.out == f"verified: {RUN}, replayed from step 15, has equal digests at step 20\n"
    assert treadle("verify", str(RUN), "--from", "5") == 0
    assert "replayed from step 5, has equal digests at step 10, 15, 20" in treadle.out
    assert treadle("verify", str(RUN), "--from", "0") == 0
    assert {path: path.read_bytes() for path in RUN.rglob("*") if path.is_file()} == files


def test_a_state_that_training_does_not_lead_to_is_named(treadle: Any, trained: None) -> None:
    """Somebody has changed a weight of a checkpoint, and made its manifest fit."""
    from treadle.checkpoint.state import State
    from treadle.checkpoint.store import read_checkpoint, write_checkpoint

    path = RUN / "checkpoints" / "step-00000010"
    state = read_checkpoint(path)
    state.tensors["model/state/bias"] += 1e-3
    write_checkpoint(path.parent, State(state.values, state.tensors, state.clock))
    assert hash_file(path / "tensors.safetensors")
    assert treadle("verify", str(RUN), "--from", "5") == 1
    assert f"differs: {RUN}, replayed from step 5, is another run at step 10" in treadle.out
    assert (
        "first difference (saved and replayed): model/state/bias: 1 of 1 entries differ, by up to 0.001" in treadle.out
    )


def test_changed_data_is_named(treadle: Any, line: None) -> None:
    Path("factor").write_text("2")
    assert treadle("train", "line", "--data", "factor", "--save-every", "5 steps") == 0
    Path("factor").write_text("2.0001")
    assert treadle("verify", str(RUN), "--from", "0") == 1
    assert "first difference (saved and replayed): data/feed: " in treadle.out
    assert treadle("verify", str(RUN)) == 1
    assert "first difference (saved and replayed): the data of 'feed' is not what it was" in treadle.out


def test_a_damaged_checkpoint_is_one_line_and_1(treadle: Any, trained: None) -> None:
    tensors = RUN / "checkpoints" / "step-00000020" / "tensors.safetensors"
    changed = load_file(tensors)
    save_file({name: value + 1 for name, value in changed.items()}, tensors)
    assert treadle("verify", str(RUN)) == 1
    assert "tensors.safetensors is damaged" in treadle.err and treadle.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--from", "7"], "no checkpoint at step 7: there are 5, 10, 15, 20"), (["--from", "x"], "invalid int value")],
)
def test_bad_usage_is_one_line(treadle: Any, trained: None, arguments: list[str], said: str) -> None:
    assert treadle("verify", str(RUN), *arguments) == 2
    assert said in treadle.err and treadle.err.count("\n") == 1
