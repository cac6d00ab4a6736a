"""Bad steps: stop, skip, roll back; spikes; the batch is kept; a bounded number of times."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from treadle.engine.bad_steps import LossSpike, NonFiniteError, SpikeDetector


@pytest.fixture
def poisoned(line, line_class):
    """A trainer whose sample 7 is poison: whatever batch has it gives a NaN loss."""

    class Poisoned(line_class):
        def step(self, batch):
            x, y = batch
            loss = torch.nn.functional.mse_loss(self.model(x), y)
            if (x == x_bad).any():
                loss = loss * float("nan")
            self.minimize(loss)
            return loss

    x_bad = torch.linspace(-1, 1, 50)[7]

    def make(**settings):
        return line(Poisoned, **({"batch_size": 10} | settings))

    return make


def test_stop_names_the_step_and_leaves_the_parameters_finite(poisoned):
    trainer = poisoned()
    with pytest.raises(NonFiniteError, match=r"the loss is nan, at step \d+ \(epoch 1, batch \d\)"):
        trainer.train()
    assert torch.isfinite(trainer.model.weight).all()


def test_skip_goes_on_without_the_batch(poisoned):
    trainer = poisoned(on_bad_step="skip")
    assert trainer.train().step == 10
    assert trainer.updates() == 8
    bad = [entry for entry in trainer.journal if entry["event"] == "bad step"]
    assert len(bad) == 2 and bad[0]["policy"] == "skip"
    assert torch.isfinite(trainer.model.weight).all()


@pytest.mark.parametrize("on_disk", [False, True])
def test_rollback_goes_on_from_the_last_good_state_and_passes_over_the_batch(poisoned, tmp_path, on_disk):
    where = {"run_dir": tmp_path / "run", "save_every": "1 step"} if on_disk else {"snapshot_every": "1 step"}
    trainer = poisoned(on_bad_step="rollback", **where, seed=3)
    assert trainer.train().step == 10
    events = [entry["event"] for entry in trainer.journal]
    assert events.count("rollback") == 2 and "bad step" in events
    assert trainer.updates() == 8
    again = poisoned(on_bad_step="skip", seed=3)
    again.train()
    assert torch.equal(again.model.weight, trainer.model.weight), "going back one step and passing over is skipping"


def test_train_goes_on_after_a_rollback_over_several_steps(poisoned):
    trainer = poisoned(on_bad_step="rollback", snapshot_every="2 steps", max_epochs=3, max_recoveries=9)
    summary = trainer.train()
    rollbacks = [entry for entry in trainer.journal if entry["event"] == "rollback"]
    assert any(entry["from_step"] > entry["restored"] for entry in rollbacks)
    assert summary.status == "finished" and summary.step == 15


def test_the_batch_is_kept_to_be_looked_at(poisoned, tmp_path):
    trainer = poisoned(on_bad_step="skip", run_dir=tmp_path / "run")
    trainer.train()
    kept = sorted((trainer.run.path / "bad_batches").glob("*.safetensors"))
    assert len(kept) == 2
    tensors = load_file(kept[0])
    assert any((value == torch.linspace(-1, 1, 50)[7]).any() for value in tensors.values())


def test_it_is_bounded(poisoned):
    with pytest.raises(NonFiniteError, match="given up after 3 recoveries"):
        poisoned(on_bad_step="skip", max_epochs=9).train()


def test_a_spike_is_a_bad_step(line, line_class):
    class Spiky(line_class):
        def step(self, batch):
            x, y = batch
            loss = torch.nn.functional.mse_loss(self.model(x), y)
            self.minimize(loss * (1e6 if self.progress.step == 40 else 1.0))
            return loss

    trainer = line(Spiky, max_epochs=20, spike=8.0, on_bad_step="skip")
    assert trainer.train().status == "finished"
    bad = [entry for entry in trainer.journal if entry["event"] == "bad step"]
    assert [entry["step"] for entry in bad] == [40] and "spike" in bad[0]["what"]


def test_the_detector_needs_a_history_and_lets_a_loss_fall():
    detector = SpikeDetector(3.0)
    for value in [100.0, 1.0, 50.0]:
        detector.check(value)
    detector = SpikeDetector(3.0)
    for step in range(200):
        detector.check(10.0 - step * 0.05)
    with pytest.raises(LossSpike):
        detector.check(30.0)
    copy = SpikeDetector(3.0)
    copy.load_state_dict(detector.state_dict())
    with pytest.raises(LossSpike):
        copy.check(30.0)
