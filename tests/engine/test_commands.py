"""The command queue: typed, range-checked, obeyed between steps, journalled with the step."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from treadle import Hook, LearningRate, Objective, UsageError


def test_a_learning_rate_multiplier_holds_over_the_schedule_and_is_journalled(line, line_class):
    class Scheduled(line_class):
        def setup(self):
            super().setup()
            self.rate = LearningRate(self.optimizer, "linear 1.0 to 0.0")

    for kind, base in [(line_class, 0.1), (Scheduled, 1.0 - 2 / 6)]:
        trainer = line(kind)
        trainer.iterate(), trainer.iterate()
        done = trainer.commands.lr_multiplier(0.5)
        trainer.iterate()
        assert done.done()
        assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * base)
        trainer.commands.lr_multiplier(1.0)
        edits = [entry for entry in trainer.journal if entry["event"] == "edit"]
        assert [(e["what"], e["step"], e["before"], e["after"]) for e in edits] == [("lr_multiplier", 2, 1.0, 0.5)]


def test_a_loss_weight_is_replaced(line, line_class):
    class Weighted(line_class):
        def setup(self):
            super().setup()
            self.objective = Objective()
            self.objective.add("fit", weight=2.0)

        def step(self, batch):
            losses = self.objective(fit=torch.nn.functional.mse_loss(self.model(batch[0]), batch[1]))
            self.minimize(losses)
            return losses

    trainer = line(Weighted, log_every="1 step")
    trainer.iterate()
    assert trainer.metrics["fit.weight"] == 2.0
    trainer.commands.loss_weight("fit", 0.25)
    trainer.iterate()
    assert trainer.metrics["fit.weight"] == 0.25
    wrong = trainer.commands.loss_weight("fitt", 1.0)
    trainer.iterate()
    assert "did you mean 'fit'" in str(wrong.exception())


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), 1e9, "2", None, True])
def test_values_are_checked_in_the_callers_thread(line, value):
    with pytest.raises(UsageError, match="learning-rate multiplier"):
        line().commands.lr_multiplier(value)


def test_anything_else_is_no_command(line):
    with pytest.raises(UsageError, match="is no command"):
        line().commands.put("stop")


def test_pause_holds_train_until_continue(line):
    trainer = line(max_epochs=100)
    trainer.commands.pause()
    thread = threading.Thread(target=trainer.train)
    thread.start()
    deadline = time.monotonic() + 5
    while not trainer.overview().paused and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    assert trainer.overview().paused and trainer.overview().step == 0
    trainer.commands.resume()
    thread.join(timeout=10)
    assert trainer.overview().step == 300
    assert [entry["event"] for entry in trainer.journal][:2] == ["pause", "continue"]


def test_a_paused_iterate_takes_no_step(line):
    trainer = line()
    trainer.iterate()
    trainer.commands.pause()
    assert not trainer.iterate() and not trainer.iterate() and trainer.paused
    trainer.commands.resume()
    assert trainer.iterate() and trainer.progress.step == 2


def test_validate_and_stop_by_command(line, line_data):
    trainer = line(validation_data=line_data, validate_every=None)
    result = trainer.commands.validate()
    trainer.commands.stop("lunch")
    assert not trainer.iterate()
    assert result.result()["loss"] > 0
    assert (trainer.status, trainer.reason) == ("stopped", "lunch")


def test_validate_without_data_and_save_without_a_run_are_refused_not_fatal(line):
    trainer = line()
    refused = [trainer.commands.validate(), trainer.commands.save()]
    assert trainer.iterate()
    assert all(isinstance(future.exception(), UsageError) for future in refused)
    assert [entry["event"] for entry in trainer.journal] == ["refused", "refused", "start"]


def test_save_writes_a_checkpoint_at_once(line, tmp_path):
    trainer = line(run_dir=tmp_path / "line")
    trainer.iterate()
    trainer.commands.save()
    trainer.iterate()
    assert (trainer.run.path / "checkpoints" / "step-00000001" / "manifest.json").is_file()
    trainer.close()


def test_commands_from_many_threads_are_all_obeyed(line):
    trainer = line(max_epochs=300)
    futures, lock = [], threading.Lock()

    def send():
        for _ in range(20):
            future = trainer.commands.lr_multiplier(0.9)
            with lock:
                futures.append(future)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    trainer.train()
    for thread in threads:
        thread.join()
    trainer.iterate()
    assert len(futures) == 80
    assert sum(entry["event"] == "edit" for entry in trainer.journal) == sum(f.done() for f in futures)


def test_an_empty_queue_costs_nothing_per_step(line):
    class Count(Hook):
        calls = 0

        def on_journal(self, trainer, entry):
            self.calls += 1

    hook = Count()
    line(hooks=[hook]).train()
    assert hook.calls == 2  # start and finish


def test_a_multiplier_keeps_what_others_do_to_the_rate_and_reaches_unscheduled_groups(line, line_class):
    class Grouped(line_class):
        def setup(self):
            super().setup()
            self.optimizer = torch.optim.SGD(
                [{"params": [self.model.weight], "name": "w"}, {"params": [self.model.bias], "name": "b"}], lr=0.4
            )
            self.rate = LearningRate(self.optimizer, 1.0, group="w")

    def rates(trainer):
        trainer.iterate()
        return [group["lr"] for group in trainer.optimizer.param_groups]

    trainer = line(Grouped, max_epochs=9)
    trainer.commands.lr_multiplier(0.5)
    assert rates(trainer) == [0.5, 0.2]
    trainer.optimizer.param_groups[1]["lr"] *= 0.5  # as a torch scheduler does
    trainer.commands.lr_multiplier(1.0)
    assert rates(trainer) == [1.0, 0.2]
    trainer.commands.lr_multiplier(0.0)
    assert rates(trainer) == [0.0, 0.0]
    trainer.commands.lr_multiplier(2.0)
    assert rates(trainer) == [2.0, 0.4]
