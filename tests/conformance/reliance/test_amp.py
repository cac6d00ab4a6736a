"""AMP: what is computed in which precision, and what the loss scale does."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from relied_on import DATA, At, Fit, after, asserted_by, end, fit, resumes_exactly, trained
from torch import nn

from treadle import EMA, UsageError
from treadle.engine.bad_steps import NonFiniteError


@asserted_by("Ignite test_create_supervised_trainer_on_cuda_amp", "Composer test_precision")
def test_bf16_computes_in_bf16_and_keeps_fp32_weights() -> None:
    """`precision="bf16"` multiplies in bfloat16; weights, gradients and moments stay in float32."""
    seen: set[torch.dtype] = set()

    class Looks(Fit):
        def step(self, batch: Any) -> Any:
            seen.add(self.model(batch[0]).dtype)
            return super().step(batch)

        def pre_update(self, optimizer: Any) -> None:
            assert self.model.weight.grad.dtype == torch.float32

    assert trained(Looks, precision="bf16").model.weight.dtype == torch.float32 and seen == {torch.bfloat16}


@asserted_by("Lightning test_amp_forward_context_restores_grad_mode_context_managers")
def test_only_steps_are_under_autocast() -> None:
    """`step` and `validation_step` are under autocast; hooks, `pre_update` and the program around are not."""
    on: dict[str, bool] = {}

    class Looks(Fit):
        def step(self, batch: Any) -> Any:
            on["step"] = torch.is_autocast_enabled("cpu")
            return super().step(batch)

        def validation_step(self, batch: Any) -> Any:
            on["validation"] = torch.is_autocast_enabled("cpu")
            return super().validation_step(batch)

        def pre_update(self, optimizer: Any) -> None:
            on["pre_update"] = torch.is_autocast_enabled("cpu")

        def post_step(self, batch: Any, outputs: Any) -> None:
            on["post_step"] = torch.is_autocast_enabled("cpu")

    trained(Looks, precision="bf16", validation_data=DATA)
    on["around"] = torch.is_autocast_enabled("cpu")
    assert on == {"step": True, "validation": True, "pre_update": False, "post_step": False, "around": False}


class Overflows(Fit):
    """Its loss is finite, and its gradient overflows in some of the first steps, as one in fp16 may."""

    at = frozenset({1})

    def setup(self) -> None:
        super().setup()
        self.told: list[bool] = []
        self.ema = EMA(self.model, decay=0.5)
        self.model.weight.register_hook(lambda gradient: gradient * (math.inf if self.progress.step in self.at else 1))

    def step(self, batch: Any) -> Any:
        self.told.append(self.minimize(1e-3 * self.loss(batch)))
        return {}


@asserted_by(
    "Lightning test_skip_training_step_with_grad_scaler", "Accelerate test_accelerated_optimizer_step_was_skipped"
)
def test_an_overflow_in_fp16_skips_the_update_and_halves_the_scale() -> None:
    """In fp16 an overflow skips its update and halves the loss scale; `minimize` says False, no update is counted."""
    trainer = fit(Overflows, precision="fp16")
    scaler = trainer.minimizer.updaters["optimizer"].scaler
    scale, weight = scaler.get_scale(), after(1, trainer).model.weight.detach().clone()
    after(2, trainer)
    assert trainer.told == [True, False] and trainer.updates() == 1
    assert torch.equal(trainer.model.weight, weight) and scaler.get_scale() == scale / 2
    after(3, trainer)
    assert trainer.told[-1] and trainer.updates() == 2


@asserted_by("Composer test_ema")
def test_a_skipped_update_does_not_move_the_average() -> None:
    """An update that fp16 skips moves no average either."""
    trainer = trained(Overflows, precision="fp16")
    assert trainer.ema.updates == trainer.updates() == 5


def test_gradients_that_no_scale_can_help_end_the_run() -> None:
    """A gradient that overflows at every loss scale ends the run in one line, instead of skipping for ever."""
    kind = type("Always", (Overflows,), {"at": frozenset(range(1000))})
    with pytest.raises(NonFiniteError, match="NaN or Inf in fp16 at every loss scale down to"):
        trained(kind, precision="fp16", max_epochs=100)


@asserted_by("Lightning test_amp_fused_optimizer_parity", "Ignite test_create_supervised_trainer_on_cuda_amp_scaler")
def test_fp16_is_a_plain_loop_with_a_scaler() -> None:
    """fp16 gives the weights of a plain loop with autocast and torch's `GradScaler`, to the last bit."""
    trainer = fit(shuffle=False, precision="fp16", fused=False)
    model = nn.Linear(1, 1)
    model.load_state_dict(trainer.model.state_dict())
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu")
    for x, y in list(zip(DATA[0].split(4), DATA[1].split(4), strict=True)) * 2:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = nn.functional.mse_loss(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    trainer.train()
    assert torch.equal(trainer.model.weight, model.weight)


@asserted_by("Lightning test_clip_gradients", "Lightning test_multiple_optimizers_manual_amp")
def test_pre_update_and_clipping_see_unscaled_gradients() -> None:
    """In fp16 gradients are unscaled before `pre_update` sees them and before they are clipped."""
    norms: list[float] = []
    note = At("pre_update", lambda t, optimizer: norms.append(float(t.model.weight.grad.norm())))
    trainer = after(1, fit(precision="fp16", hooks=[note], clip_norm=0.5, log_every="1 step"))
    after(1, fit(hooks=[note]))
    assert norms[0] == pytest.approx(norms[1], rel=0.01)
    assert trainer.metrics["grad_norm_clipped"] == pytest.approx(0.5, abs=1e-5)


@asserted_by("Ignite test_gradients_on_resume_cpu", "Composer test_resumption")
def test_the_loss_scale_is_part_of_the_state(tmp_path: Path) -> None:
    """A killed fp16 run goes on with the loss scale that it had, to the same digest."""
    trainer = resumes_exactly(3, tmp_path, Overflows, precision="fp16")
    assert trainer.minimizer.updaters["optimizer"].scaler.get_scale() == 2.0**15


@asserted_by("Lightning test_multiple_optimizers_manual_amp")
def test_each_optimizer_has_a_scale_of_its_own() -> None:
    """With two optimizers an overflow of one lowers its own loss scale and leaves the other's."""

    class Two(Overflows):
        def setup(self) -> None:
            super().setup()
            self.other = nn.Linear(1, 1)
            self.second = torch.optim.SGD(self.other.parameters(), lr=0.1)

        def step(self, batch: Any) -> Any:
            self.minimize(1e-3 * self.loss(batch), self.optimizer)
            self.minimize(1e-3 * self.other(batch[0]).float().square().mean(), self.second)
            return {}

    updaters = after(2, fit(Two, precision="fp16")).minimizer.updaters
    assert updaters["optimizer"].scaler.get_scale() * 2 == updaters["second"].scaler.get_scale()


def test_refuses_one_backward_for_two_scales() -> None:
    """In fp16 one `minimize` for several optimizers is refused at the first step: each has its own loss scale."""

    class Joint(Fit):
        def setup(self) -> None:
            super().setup()
            self.other = nn.Linear(1, 1)
            self.second = torch.optim.SGD(self.other.parameters(), lr=0.1)

        def step(self, batch: Any) -> Any:
            self.minimize(self.loss(batch) + self.other(batch[0]).mean(), [self.optimizer, self.second])
            return {}

    with pytest.raises(UsageError, match="call minimize once per optimizer"):
        trained(Joint, precision="fp16")


@asserted_by("torchtnt test_mixed_precision_invalid_str")
def test_refuses_an_unknown_precision() -> None:
    """Lightning's `precision="16-mixed"` is refused when the trainer is made, naming the precisions there are."""
    with pytest.raises(UsageError, match=r"precision.*'16-mixed'.*fp16"):
        fit(precision="16-mixed")


@asserted_by("Lightning test_double_precision")
def test_double_precision_is_the_models_own() -> None:
    """A model and data in float64 are trained in float64: nothing is cast."""

    class Double(Fit):
        def setup(self) -> None:
            self.model = nn.Linear(1, 1, dtype=torch.float64)
            self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)

    trainer = trained(Double, data=tuple(part.double() for part in DATA), clip_norm=1.0)
    assert trainer.model.weight.dtype == torch.float64
    assert trainer.optimizer.state[trainer.model.weight]["exp_avg"].dtype == torch.float64


@asserted_by("Lightning test_default_dtype_is_restored")
def test_nothing_global_is_left_switched() -> None:
    """After training, torch's default dtype, gradient mode, autocast and thread count are as they were."""

    def switches() -> Any:
        enabled = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled()
        return torch.get_default_dtype(), enabled, torch.get_num_threads(), torch.get_autocast_dtype("cpu")

    before = switches()
    trained(precision="bf16", validation_data=DATA)
    assert switches() == before


@asserted_by("Lightning test_torch_autocast_cache_behavior_with_no_grad", "Lightning test_amp_with_no_grad")
def test_a_pass_without_gradients_does_not_freeze_the_next() -> None:
    """A pass under `no_grad` before the loss (a target, a teacher) does not cut the weights out of its graph."""

    class Teacher(Fit):
        def step(self, batch: Any) -> Any:
            with torch.no_grad():
                target = self.model(batch[0]) + 1
            loss = (self.model(batch[0]) - target).square().mean()
            self.minimize(loss)
            return {"loss": loss}

    trainer = fit(Teacher, precision="bf16")
    before = trainer.model.weight.detach().clone(), trainer.model.bias.detach().clone()
    after(1, trainer)
    assert not torch.equal(trainer.model.bias, before[1])


@asserted_by("Lightning test_amp_autocast_context_manager_disables_cache")
def test_what_follows_an_update_in_a_step_sees_the_new_weights() -> None:
    """A second pass in the same step computes with the weights after the update, not with cached casts of the old."""
    seen: list[float] = []

    class Twice(Fit):
        def setup(self) -> None:
            super().setup()
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=5.0)

        def step(self, batch: Any) -> Any:
            self.minimize(self.model(batch[0]).mean())
            with torch.no_grad():
                seen.append(float(self.model(torch.zeros(1, 1))) - float(self.model.bias))
            return {}

    after(1, fit(Twice, precision="bf16"))
    assert abs(seen[0]) < 0.05


def test_a_region_of_a_step_may_opt_out() -> None:
    """A part of a step may switch autocast off and compute in float32."""
    dtypes: list[torch.dtype] = []

    class Partly(Fit):
        def step(self, batch: Any) -> Any:
            with torch.autocast("cpu", enabled=False):
                dtypes.append(self.model(batch[0]).dtype)
            dtypes.append(self.model(batch[0]).dtype)
            return super().step(batch)

    after(1, fit(Partly, precision="bf16"))
    assert dtypes == [torch.float32, torch.bfloat16]


@asserted_by("Composer test_precision")
def test_auto_is_settled_when_the_trainer_is_made() -> None:
    """`precision="auto"` is settled when the trainer is made: its config says what it came to."""
    assert fit(precision="auto").config.precision in ("bf16", "fp32")


@asserted_by("Composer test_microbatch")
def test_it_accumulates_in_fp16() -> None:
    """Micro-batches accumulate in fp16 too: close to the large batch, with one update a window."""

    class Gentle(Fit):
        def loss(self, batch: Any) -> Any:
            return 1e-2 * super().loss(batch)

    small = trained(Gentle, precision="fp16", accumulate=3, shuffle=False)
    large = trained(Gentle, precision="fp16", batch_size=12, shuffle=False)
    assert small.updates() == large.updates() == 2
    assert torch.allclose(small.model.weight, large.model.weight, atol=2e-3)


def test_bf16_runs_have_equal_digests() -> None:
    """Two runs in bf16 are equal to the last bit, as those in fp32 are."""
    assert end(fit(precision="bf16")) == end(fit(precision="bf16")) != end(fit())


def test_refuses_another_precision_at_a_resume(tmp_path: Path) -> None:
    """A resume in another precision is refused before it starts: the past was computed in the first."""
    from relied_on import killed

    path = killed(2, tmp_path)
    with pytest.raises(UsageError, match=r"a resume cannot change precision \('fp32' -> 'bf16'\)"):
        fit(precision="bf16", run_dir=path, resume=True)
