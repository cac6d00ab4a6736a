"""Interrupts: signals, errors and people who stop, pause, save or close a run."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from relied_on import DATA, At, Diary, Fit, after, asserted_by, end, fit, trained

from treadle import Interrupts, RunError, Trainer, UsageError


def at_step(step: int, function: Any) -> At:
    """A hook that calls a function after one step."""
    return At("post_step", lambda trainer, *_: function(trainer) if trainer.progress.step == step else None)


def raises(error: BaseException) -> Any:
    """A function of the trainer that raises."""

    def function(trainer: Any) -> None:
        raise error

    return function


@asserted_by("Lightning test_keyboard_interrupt", "Lightning test_on_exception_hook")
def test_ctrl_c_ends_the_run_and_is_passed_on() -> None:
    """Ctrl-C in a step reaches `on_exception` and `teardown`, and then the program; the run is not "failed"."""
    diary = Diary("on_exception", "teardown", "post_training")
    trainer = fit(hooks=[at_step(2, raises(KeyboardInterrupt())), diary])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert diary.names == ["on_exception", "teardown"] and (trainer.status, trainer.reason) == (
        "stopped",
        "interrupted",
    )


def test_ctrl_c_in_an_observer_is_not_swallowed() -> None:
    """Ctrl-C while a logger is at work ends the run as anywhere else."""

    class Viewer(At):
        observer = True

    with pytest.raises(KeyboardInterrupt):
        trained(hooks=[Viewer("post_step", lambda *_: raises(KeyboardInterrupt())(None))])


def interrupted(number: int, **settings: Any) -> tuple[Any, Interrupts]:
    """A run that the signal reached in its second step."""
    trainer = fit(max_epochs=10**6, hooks=[at_step(2, lambda trainer: signal.raise_signal(number))], **settings)
    with Interrupts(trainer) as interrupts:
        trainer.train()
    return trainer, interrupts


@asserted_by("Lightning test_sigterm_exception_exit_code")
def test_sigterm_stops_after_the_step_under_way(capsys: Any) -> None:
    """Within `Interrupts`, SIGTERM stops after the step under way, resumable, with exit code 143."""
    trainer, interrupts = interrupted(signal.SIGTERM)
    assert (trainer.status, interrupts.exit_code) == ("stopped", 143) and not trainer.ended
    assert trainer.reason == "interrupted by SIGTERM" and "stopping after this step" in capsys.readouterr().err


@asserted_by("Lightning test_keyboard_interrupt")
def test_sigint_does_so_with_its_own_exit_code() -> None:
    """Within `Interrupts`, Ctrl-C raises nothing: the run stops after its step, with exit code 130."""
    trainer, interrupts = interrupted(signal.SIGINT)
    assert (trainer.status, interrupts.exit_code) == ("stopped", 130)


@asserted_by("Lightning test_signal_handlers_restored_in_teardown", "Lightning test_has_already_handler")
def test_the_programs_own_handlers_come_back() -> None:
    """Whatever handled signals before handles them again afterwards."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    with Interrupts(fit()):
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before


@asserted_by("Lightning test_signal_connector_in_thread")
def test_refuses_to_handle_signals_in_a_thread() -> None:
    """`Interrupts` in a thread, where no signal can be handled, is refused there with where to enter it."""
    caught: list[BaseException] = []

    def enter() -> None:
        try:
            Interrupts(fit()).__enter__()
        except UsageError as error:
            caught.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    with pytest.raises(UsageError, match="Interrupts is entered in a thread: enter it in the main one"):
        raise caught[0]


@asserted_by("Lightning test_loop_state_on_exception", "Lightning test_error_handling_all_stages")
def test_an_error_in_a_step_says_where_and_why() -> None:
    """An error in `step` fails the run: the status and reason say so, and the error says at which step and batch."""
    trainer = fit()
    trainer.replace("step", lambda trainer, batch: [][len(batch[0])])
    with pytest.raises(IndexError) as caught:
        trainer.train()
    assert trainer.status == "failed" and trainer.reason.startswith("IndexError: ")
    assert "in step, at step 1 (epoch 1, batch 1)" in caught.value.__notes__


def test_an_error_in_teardown_does_not_hide_the_first() -> None:
    """An error while the run is torn down carries the one that ended it, as Python shows it."""
    hooks = [at_step(1, raises(ValueError("first"))), At("teardown", raises(KeyError("second")))]
    with pytest.raises((ValueError, KeyError)) as caught:
        trained(hooks=hooks)
    chain = [caught.value, caught.value.__context__]
    assert any(isinstance(error, ValueError) for error in chain)


@asserted_by("Lightning test_trainer_calls_strategy_on_exception")
def test_a_with_block_closes_the_run() -> None:
    """A `with` block around a trainer closes it at its end: `teardown` once, no further step."""
    diary = Diary("teardown")
    with fit(hooks=[diary]) as trainer:
        after(2, trainer)
    assert diary.names == ["teardown"] and trainer.ended and not trainer.iterate()


@asserted_by("Composer test_idempotent_close", "Composer test_multiple_init_and_close")
def test_closing_twice_is_closing_once() -> None:
    """`close()` may be called any number of times, before training too."""
    diary = Diary("teardown", "pre_training")
    trainer = fit(hooks=[diary])
    trainer.close(), trainer.close()
    assert diary.names == ["teardown"] and not trainer.iterate()


@asserted_by("Ignite test_engine_run_interrupt_resume", "torchtnt test_train_stop")
def test_another_thread_may_stop_a_run() -> None:
    """Another thread may stop a run: it returns after the step under way, and can go on."""
    trainer = fit(max_epochs=10**6)
    thread = threading.Thread(target=trainer.stop, args=("the window was closed",))
    begins = at_step(3, lambda trainer: thread.start())
    trainer.add_hook(begins)
    summary = trainer.train()
    thread.join()
    assert (summary.status, summary.reason) == ("stopped", "the window was closed") and trainer.iterate()


def test_another_thread_may_pause_look_and_continue() -> None:
    """Another thread may pause a run, look at it between two steps, and let it go on; the run is the same."""
    trainer, seen = fit(), []

    def visit() -> None:
        seen.append(trainer.commands.call(lambda: (trainer.progress.step, trainer.model.training)).result())
        trainer.commands.resume().result()

    visitor = threading.Thread(target=visit)

    def pause(trainer: Any) -> None:
        trainer.commands.pause()
        visitor.start()

    trainer.add_hook(at_step(2, pause))
    assert end(trainer) == end(fit())
    visitor.join()
    assert seen == [(2, False)]


@asserted_by("Keras test_stop_training_csv", "Lightning test_should_stop_mid_epoch")
def test_a_hook_may_stop_the_run_to_go_on_later() -> None:
    """`stop` in a hook returns after its step with the reason given, and `train` goes on behind it."""
    trainer = fit(hooks=[at_step(2, lambda trainer: trainer.stop("look at it"))])
    assert (trainer.train().reason, trainer.progress.step) == ("look at it", 2)
    assert trainer.train().step == 6


def test_a_save_asked_for_in_a_step_comes_after_it(tmp_path: Path) -> None:
    """`request_save` in a step or hook writes a checkpoint as soon as the step is over."""
    trainer = trained(run_dir=tmp_path / "run", save_every=None, hooks=[at_step(2, lambda t: t.request_save())])
    kept = sorted(path.name for path in (trainer.run.path / "checkpoints").glob("step-*"))
    assert kept == ["step-00000002", "step-00000006"]


def test_refuses_to_save_half_a_step(tmp_path: Path) -> None:
    """`save()` inside a step or hook, where half a step would be saved, is refused there, with what to call."""
    with pytest.raises(UsageError, match=r"save\(\) was called from inside a step or a hook: call request_save\(\)"):
        trained(run_dir=tmp_path / "run", hooks=[at_step(2, lambda trainer: trainer.save())])


def test_refuses_to_save_where_nothing_is_kept() -> None:
    """`save()` without a run on disk is refused, with how to make it one."""
    with pytest.raises(UsageError, match="nowhere to save: make the trainer a run on disk with run_dir="):
        after(1, fit()).save()


def test_a_rewind_asked_for_in_a_hook_happens_after_the_step() -> None:
    """`rewind` in a hook goes back once the step is over, and the run ends as if it had never gone ahead."""
    once: list[int] = []
    back = at_step(5, lambda trainer: once or (once.append(1), trainer.rewind(2)))
    trainer = fit(snapshot_every="1 step", hooks=[back], keep_snapshots=9)
    assert end(trainer) == end(fit(snapshot_every="1 step")) and once == [1]


@asserted_by("Lightning test_fit_can_fail_during_validation")
def test_ctrl_c_in_a_validation_gives_modes_and_weights_back() -> None:
    """Ctrl-C in the middle of a validation leaves models in training mode and gradients on."""

    class Slow(Fit):
        def validation_step(self, batch: Any) -> Any:
            raise KeyboardInterrupt

    trainer = fit(Slow, validation_data=DATA)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert trainer.model.training and torch.is_grad_enabled()


def test_sys_exit_in_a_step_ends_the_program_and_closes_the_run() -> None:
    """`sys.exit()` in a step ends the program with its code, and the run is closed, not failed."""
    diary = Diary("teardown")
    trainer = fit(hooks=[at_step(1, raises(SystemExit(3))), diary])
    with pytest.raises(SystemExit) as caught:
        trainer.train()
    assert caught.value.code == 3 and trainer.status == "stopped" and diary.names == ["teardown"]


def test_the_state_before_an_error_can_be_resumed(tmp_path: Path) -> None:
    """After an error the newest checkpoint is whole, and a resume goes on from it to the end of a run without it."""
    with pytest.raises(ZeroDivisionError):
        trained(run_dir=tmp_path / "run", save_every="2 steps", hooks=[at_step(5, lambda trainer: 1 / 0)])
    trainer = fit(run_dir=tmp_path / "run" / "v001", save_every="2 steps", resume=True)
    assert trainer.progress.step == 4 and end(trainer) == end(fit())


def test_commands_after_the_end_are_answered() -> None:
    """A command that comes after the run's end is answered at once, with an error, and waits for nobody."""
    with pytest.raises(RunError, match="the run has ended"):
        trained().commands.validate().result(timeout=0)


def test_refuses_a_step_from_inside_a_step() -> None:
    """`train()` or `iterate()` inside a step or hook of the same trainer is refused there in one line."""
    with pytest.raises(UsageError, match=r"iterate\(\) was called from inside a step or a hook"):
        trained(hooks=[At("post_epoch", lambda trainer: Trainer.iterate(trainer))])


def test_a_run_may_be_let_run_to_a_condition() -> None:
    """`commands.run_until("loss < 1")` runs until that is so, and pauses there."""
    trainer = fit(max_epochs=99, log_every="1 step")
    reached = trainer.commands.run_until("loss < 1")
    while trainer.iterate():
        pass
    assert trainer.paused and reached.result(timeout=0)["reached"] and trainer.metrics["loss"] < 1
