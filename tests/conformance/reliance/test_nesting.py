"""Nesting: trainers beside, inside and after one another, and what surrounds them."""

from __future__ import annotations

import copy
import gc
import pickle
import random
import threading
import warnings
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from relied_on import DATA, At, Diary, Fit, X, after, asserted_by, end, fit, trained
from torch import nn

import treadle
from treadle import Interrupts, UsageError


class Draws(Fit):
    """Draws from every generator there is."""

    def loss(self, batch: Any) -> Any:
        noise = random.random() + np.random.randn() + float(torch.rand(()))
        return super().loss(batch) + noise * self.model.bias.square().sum() * 0.01


@asserted_by("Lightning test_trainer_subclassing", "Accelerate test_accelerator_can_be_reinstantiated")
def test_two_trainers_step_by_step_are_each_as_alone() -> None:
    """Two trainers that take steps in turn end as each would alone, whatever they draw."""
    first, second = fit(Draws), fit(Draws, seed=1)
    while first.iterate() | second.iterate():
        pass
    assert first.digest() == end(fit(Draws)) and second.digest() == end(fit(Draws, seed=1))


@asserted_by("Ignite test_altered_random_state")
def test_a_trainer_inside_a_step_of_another() -> None:
    """A trainer may be made and trained inside a step of another (meta-learning); both are as alone."""
    inner: list[str] = []

    class Outer(Draws):
        def step(self, batch: Any) -> Any:
            inner.append(end(fit(Draws, max_epochs=1, seed=7)))
            return super().step(batch)

    assert end(fit(Outer)) == end(fit(Draws)) and set(inner) == {end(fit(Draws, max_epochs=1, seed=7))}


def test_a_trainer_inside_a_hook_and_a_validation() -> None:
    """A probe may be trained inside a hook, and inside a validation, where gradients are off for the outer run."""

    class Probes(Fit):
        def validation_step(self, batch: Any) -> Any:
            with torch.enable_grad():
                probe = trained(data=batch, batch_size=12)
            return {"loss": probe.metrics["loss"]}

    trainer = fit(Probes, validation_data=DATA, hooks=[At("post_epoch", lambda trainer: trained(Draws))])
    trainer.train()
    assert torch.equal(trainer.model.weight, trained().model.weight) and trainer.validation_metrics["loss"] > 0


@asserted_by("Ignite test_engine_random_state", "Ignite test_keep_random_state")
def test_the_programs_own_generators_are_left_alone() -> None:
    """The program's generators of torch, NumPy and Python go on after training as if there had been none."""

    def draw() -> list[float]:
        return [float(torch.rand(())), float(np.random.rand()), random.random()]

    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    expected = draw()
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    trained(Draws, validation_data=DATA)
    assert draw() == expected


def test_stepped_from_outside_the_programs_draws_are_its_own() -> None:
    """What a program draws between two steps changes neither the run nor its own stream."""
    trainer = fit(Draws)
    torch.manual_seed(3)
    mine = [float(torch.rand(()))] + [float(torch.rand(())) for _ in iter(trainer.iterate, False)]
    torch.manual_seed(3)
    assert mine == [float(torch.rand(())) for _ in range(7)] and trainer.digest() == end(fit(Draws))


@asserted_by("Composer test_determinism")
def test_trainers_in_two_threads_do_not_disturb_one_another() -> None:
    """Trainers in two threads, both of which draw, end as each would alone."""
    kinds = [fit(Draws, max_epochs=8), fit(Draws, max_epochs=8, seed=1)]
    threads = [threading.Thread(target=trainer.train) for trainer in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [trainer.digest() for trainer in kinds] == [end(fit(Draws, max_epochs=8, seed=seed)) for seed in (0, 1)]


@asserted_by("Lightning test_trainer_predict_grad")
def test_refuses_to_train_where_gradients_are_off() -> None:
    """`train()` inside `torch.no_grad()` is refused at its first `minimize`, not trained without an effect."""
    with torch.no_grad(), pytest.raises(UsageError, match="a loss without gradients"):
        trained()


def test_anomaly_detection_around_a_run_works() -> None:
    """torch's anomaly detection around a run works as around a plain loop, and changes no weight."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.autograd.detect_anomaly():
            trainer = trained(fused=False)
    assert torch.equal(trainer.model.weight, trained(fused=False).model.weight)


def test_a_profiler_around_a_run_sees_its_steps() -> None:
    """torch's profiler around a run sees each backward pass and each optimizer's step."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        trained(max_epochs=1)
    counts = {event.key: event.count for event in profiler.key_averages()}
    assert counts.get("Optimizer.step#SGD.step") == 3


def test_autocast_of_the_program_reaches_a_step() -> None:
    """An autocast that the program puts around a run holds in its steps, as it would around a plain loop."""
    dtypes: set[torch.dtype] = set()

    class Looks(Fit):
        def step(self, batch: Any) -> Any:
            dtypes.add(self.model(batch[0]).dtype)
            return super().step(batch)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        trained(Looks, max_epochs=1)
    assert dtypes == {torch.bfloat16}


@asserted_by("Lightning test_finetuning_callback")
def test_a_model_goes_from_one_trainer_to_the_next() -> None:
    """A model that one trainer has trained may be handed to another, which goes on with its weights."""
    first = trained()

    class Second(Fit):
        def setup(self) -> None:
            self.model = first.model
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)

    before = first.model.weight.item()
    second = fit(Second)
    assert second.model.weight.item() == before and second.train().step == 6 and first.model.weight.item() != before


def test_trainers_share_nothing() -> None:
    """Two trainers of one class share no state: no list, no default, no counter."""
    first, second = trained(), fit()
    assert (
        second.progress.step == 0 and second.metrics == {} and not second.journal and first.config is not second.config
    )


def test_one_config_serves_many_trainers() -> None:
    """A config object given to two trainers is changed by neither."""
    from treadle import TrainerConfig

    config = TrainerConfig(max_epochs=1, precision="auto", batch_size=4)
    first, second = Fit(config, data=DATA), Fit(config, data=DATA, max_epochs=3)
    first.train()
    assert (first.config.max_epochs, second.config.max_epochs, config.max_epochs) == (1, 3, 1)
    assert config.precision == "auto" != first.config.precision


@asserted_by(
    "Ignite test_memory_leak",
    "Lightning test_proper_refcount",
    "Accelerate test_free_memory_dereferences_prepared_components",
)
def test_a_trainer_that_is_dropped_is_freed() -> None:
    """A trainer that was closed or has ended, and that nobody holds, is freed with its model."""
    trainer = trained(validation_data=DATA, hooks=[Diary()])
    model, itself = weakref.ref(trainer.model), weakref.ref(trainer)
    del trainer
    gc.collect()
    assert model() is None and itself() is None


def test_evaluating_may_be_entered_inside_itself() -> None:
    """`evaluating()` inside `evaluating()` is the same again, and leaves modes as they were."""
    trainer = after(2, fit())
    with trainer.evaluating():
        with trainer.evaluating():
            assert not trainer.model.training
        assert not trainer.model.training and not torch.is_grad_enabled()
    assert trainer.model.training and end(trainer) == end(fit())


def test_a_validation_inside_a_hook() -> None:
    """A hook may validate inside a step's events; the run is the same."""
    seen: list[float] = []
    look = At("post_step", lambda trainer, *_: seen.append(trainer.validate()["loss"]))
    trainer = fit(Draws, validation_data=DATA, validate_every=None, hooks=[look])
    trainer.train()
    assert len(seen) == 6 and torch.equal(trainer.model.weight, trained(Draws).model.weight)


def test_refuses_to_train_within_an_evaluation() -> None:
    """A step inside `evaluating()` is refused there: it would be taken in eval mode, with averaged weights."""
    trainer = after(1, fit())
    with trainer.evaluating(), pytest.raises(UsageError, match=r"iterate\(\) was called from inside"):
        trainer.iterate()


def test_one_hook_may_serve_two_trainers() -> None:
    """A hook without state may be given to two trainers, and is told which one speaks."""
    names: list[int] = []
    hook = At("post_epoch", lambda trainer: names.append(trainer.config.seed))
    trained(max_epochs=1, hooks=[hook]), trained(max_epochs=1, seed=5, hooks=[hook])
    assert names == [0, 5]


@asserted_by("Composer test_already_compiled_warning", "Lightning test_model_torch_save")
def test_a_trained_model_can_be_copied_and_pickled() -> None:
    """A model that was trained is a plain module: it can be copied and pickled as before, and carries no trainer."""
    trainer = trained()
    twin, other = copy.deepcopy(trainer.model), pickle.loads(pickle.dumps(trainer.model))
    assert type(twin) is type(other) is nn.Linear
    assert torch.equal(twin(X), trainer.model(X)) and torch.equal(other(X), trainer.model(X))


def test_interrupts_around_a_run_in_a_thread() -> None:
    """A run may be trained in a thread while `Interrupts` waits for signals in the main one."""
    trainer = fit()
    with Interrupts(trainer) as interrupts:
        thread = threading.Thread(target=trainer.train)
        thread.start()
        thread.join()
    assert trainer.status == "finished" and interrupts.exit_code == 0


def test_a_progress_bar_of_ones_own_drives_the_run() -> None:
    """A program's own loop (a progress bar, a GUI) may drive a run over all its steps, by the number known before."""
    trainer = fit()
    ticks = [trainer.iterate() for _ in range(trainer.progress.total_steps)]
    assert ticks == [True] * 6 and trainer.status == "finished"


@asserted_by(
    "Lightning test_callbacks_and_logger_not_called_with_fastdevrun", "Lightning test_dataloaders_with_fast_dev_run"
)
def test_a_try_out_takes_two_steps_of_everything_and_keeps_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    """`treadle.try_out` takes two steps of everything, saved and resumed once, in a moment, and keeps no file."""
    monkeypatch.chdir(tmp_path)
    assert treadle.try_out(Fit, data=DATA, validation_data=DATA, max_epochs=50).holds
    assert list(tmp_path.iterdir()) == []


@asserted_by("Lightning test_exception_when_testing_or_validating_with_fast_dev_run")
def test_refuses_at_a_try_out_what_would_fail_hours_later() -> None:
    """A try-out meets what a run would meet at its first validation, and passes it on: here a missing metric."""
    with pytest.raises(UsageError, match="monitor is 'accuracy', which validation_step does not return"):
        treadle.try_out(Fit, data=DATA, validation_data=DATA, max_epochs=50, monitor="accuracy")
