"""Modules: which are found, what of them is state, and what shape they may have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from relied_on import DATA, Fit, after, asserted_by, end, fit, killed, resumed, resumes_exactly, trained
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from treadle import StateError, UsageError
from treadle.runs.best import read_best
from treadle.testing import capture


def with_model(make: Any, lr: float = 0.05) -> Any:
    """A `Fit` with another model."""

    class Other(Fit):
        def setup(self) -> None:
            self.model = make()
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr)

    return Other


@asserted_by("torchtnt test_tracked_modules", "torchtnt test_app_state")
def test_modules_that_are_attributes_are_state() -> None:
    """Every module that is an attribute is part of the state, without being registered."""
    tensors = capture(fit()).tensors
    assert {"model/state/weight", "model/state/bias"} <= tensors.keys()


@asserted_by("torchtnt test_tracked_modules")
def test_modules_in_lists_and_dicts_are_state(tmp_path: Path) -> None:
    """Modules in plain lists and dicts are found, put into eval mode, saved and resumed too."""

    class Nested(Fit):
        def setup(self) -> None:
            self.layers = {"body": [nn.Linear(1, 2), nn.Dropout(0.5)], "head": nn.Linear(2, 1)}
            both = [*self.layers["body"][0].parameters(), *self.layers["head"].parameters()]
            self.optimizer = torch.optim.Adam(both, lr=0.1)

        def loss(self, batch: Any) -> Any:
            body, dropout = self.layers["body"]
            return nn.functional.mse_loss(self.layers["head"](dropout(body(batch[0]))), batch[1])

    trainer = resumes_exactly(4, tmp_path, Nested)
    with trainer.evaluating():
        assert not trainer.layers["body"][1].training


@asserted_by("torchtnt test_transfer_batch_norm_stats", "Composer test_resumption")
def test_batch_statistics_come_back(tmp_path: Path) -> None:
    """Running means, variances and counts of BatchNorm go on after a kill."""
    make = with_model(lambda: nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)))
    assert int(resumes_exactly(4, tmp_path, make).model[1].num_batches_tracked) == 6


@asserted_by("Ignite test_resume_random_dataloader_from_iter", "Accelerate test_can_resume_training")
def test_dropout_draws_on_where_it_was(tmp_path: Path) -> None:
    """Dropout's masks after a kill are those that would have come without it."""
    resumes_exactly(4, tmp_path, with_model(lambda: nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1))))


@asserted_by("torchtnt test_module_attr_duplicate_reference_validation")
def test_a_module_under_two_names_is_saved_once_and_stays_one(tmp_path: Path) -> None:
    """A module that two attributes name is saved once, and is still one module after a resume."""

    class Twice(Fit):
        def setup(self) -> None:
            super().setup()
            self.encoder = self.model

    trainer = resumed(2, tmp_path, Twice)
    assert trainer.encoder is trainer.model and not any(
        name.startswith("encoder/") for name in capture(trainer).tensors
    )


@asserted_by("Accelerate test_save_load_model")
def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    """Weights that two layers share (an embedding and its decoder) are still shared after a resume."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.out = nn.Linear(1, 1, bias=False), nn.Linear(1, 1)
            self.out.weight = self.into.weight

        def forward(self, x: Any) -> Any:
            return self.out(self.into(x))

    trainer = resumes_exactly(4, tmp_path, with_model(Tied))
    assert trainer.model.out.weight is trainer.model.into.weight


def test_a_lone_parameter_is_trained_and_saved(tmp_path: Path) -> None:
    """A parameter that is an attribute by itself is trained, saved and resumed without a module around it."""

    class Lone(Fit):
        def setup(self) -> None:
            self.slope, self.offset = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
            self.optimizer = torch.optim.Adam([self.slope, self.offset], lr=0.1)

        def loss(self, batch: Any) -> Any:
            return nn.functional.mse_loss(batch[0] * self.slope + self.offset, batch[1])

    assert resumes_exactly(4, tmp_path, Lone).slope.item() > 0.2


def test_what_a_module_adds_to_its_state_comes_back(tmp_path: Path) -> None:
    """State that a module keeps by `get_extra_state` goes on after a kill."""

    class Counts(nn.Linear):
        calls = 0

        def get_extra_state(self) -> Any:
            return {"calls": self.calls}

        def set_extra_state(self, state: Any) -> None:
            self.calls = state["calls"]

        def forward(self, x: Any) -> Any:
            self.calls += 1
            return super().forward(x)

    assert resumes_exactly(4, tmp_path, with_model(lambda: Counts(1, 1))).model.calls == 6


class Remembers(nn.Module):
    """Keeps the mean of its inputs, where its state dict does not have it."""

    def __init__(self, persistent: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)
        if persistent is None:
            self.mean = torch.zeros(1)
        else:
            self.register_buffer("mean", torch.zeros(1), persistent=persistent)

    def forward(self, x: Any) -> Any:
        with torch.no_grad():
            self.mean.lerp_(x.mean(0), 0.5)
        return self.linear(x) + self.mean


@asserted_by("Lightning test_strict_model_load_more_params")
def test_non_persistent_buffers_that_change_come_back(tmp_path: Path) -> None:
    """A non-persistent buffer that training changes goes on after a kill, though no state dict has it."""
    resumes_exactly(4, tmp_path, with_model(lambda: Remembers(False)))


def test_tensors_that_a_module_keeps_as_attributes_come_back(tmp_path: Path) -> None:
    """A plain tensor attribute of a module that training changes goes on after a kill, or the first save refuses it."""
    resumes_exactly(4, tmp_path, with_model(lambda: Remembers(None)))


def test_a_parametrized_module_resumes(tmp_path: Path) -> None:
    """Weight norm and spectral norm (parametrized modules, with state of their own) go on after a kill."""

    def make() -> nn.Module:
        return nn.Sequential(
            parametrizations.weight_norm(nn.Linear(1, 4)), parametrizations.spectral_norm(nn.Linear(4, 1))
        )

    resumes_exactly(4, tmp_path, with_model(make))


@asserted_by("Lightning test_training_starts_with_seed")
def test_a_lazy_module_resumes(tmp_path: Path) -> None:
    """A lazy module, whose weights come with the first batch, trains as an eager one does, and resumes."""
    make = with_model(lambda: nn.Sequential(nn.LazyLinear(2), nn.LazyLinear(1)))
    resumes_exactly(2, tmp_path / "behind", make)
    resumes_exactly(0, tmp_path / "before", make)


@asserted_by(
    "Lightning test_compile_uncompile",
    "Composer test_torch_compile",
    "torchtnt test_prepare_module_compile_module_state_dict",
)
def test_a_compiled_module_resumes_and_has_the_plain_modules_names(tmp_path: Path) -> None:
    """A module compiled by `module.compile()` trains to the same weights under the same names, and resumes."""

    def make() -> nn.Module:
        model = nn.Linear(1, 1)
        model.compile(backend="eager")
        return model

    trainer = resumes_exactly(2, tmp_path, with_model(make, lr=0.1))
    assert torch.allclose(trainer.model.weight, trained().model.weight, atol=1e-6)
    assert "model/state/weight" in capture(trainer).tensors


@asserted_by("Lightning test_callbacks_restore_backbone")
def test_what_is_frozen_and_in_eval_mode_is_so_after_a_resume(tmp_path: Path) -> None:
    """`requires_grad` of each parameter and the mode of each submodule are part of the state."""

    class Freezes(Fit):
        def setup(self) -> None:
            self.model = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

        def post_epoch(self) -> None:
            self.model[0].requires_grad_(False)
            self.model[1].eval()

    trainer = resumed(4, tmp_path, Freezes)
    assert not trainer.model[0].weight.requires_grad and not trainer.model[1].training and trainer.model.training


@asserted_by("torchtnt test_module_attr_reassignment_validation")
def test_refuses_a_model_that_its_optimizer_does_not_know() -> None:
    """A model replaced after its optimizer was built is refused when the trainer is made, not left untrained."""

    class Replaces(Fit):
        def setup(self) -> None:
            super().setup()
            self.model = nn.Linear(1, 1)

    with pytest.raises(UsageError, match="updates no parameter of the trainer's modules: build it from"):
        fit(Replaces)


@asserted_by("Accelerate test_save_model", "Composer test_save_weights_only")
def test_weights_load_into_a_plain_module(tmp_path: Path) -> None:
    """The best model's weights load into a plain `nn.Module`, without the trainer that made them."""
    trainer = trained(validation_data=DATA, run_dir=tmp_path / "run")
    model = nn.Linear(1, 1)
    model.load_state_dict(read_best(trainer.run.path).of("model"))
    assert torch.equal(model.weight, trainer.model.weight)


@asserted_by("Composer test_model_init")
def test_channels_last_resumes(tmp_path: Path) -> None:
    """A model in channels_last trains with its memory format, and goes on after a kill to the same digest."""

    class Pictures(Fit):
        def setup(self) -> None:
            self.model = nn.Conv2d(3, 2, 3).to(memory_format=torch.channels_last)
            self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)

        def loss(self, batch: Any) -> Any:
            return self.model(batch[0].contiguous(memory_format=torch.channels_last)).square().mean()

    pictures = torch.linspace(-1, 1, 12 * 3 * 16).reshape(12, 3, 4, 4)
    trainer = resumes_exactly(4, tmp_path, Pictures, data=(pictures, pictures))
    assert trainer.model.weight.is_contiguous(memory_format=torch.channels_last)


def test_complex_weights_train_and_resume(tmp_path: Path) -> None:
    """Complex parameters are trained, clipped, checked and resumed like real ones."""

    class Complex(Fit):
        def setup(self) -> None:
            self.weight = nn.Parameter(torch.ones(2, dtype=torch.complex64))
            self.optimizer = torch.optim.Adam([self.weight], lr=0.1)

        def loss(self, batch: Any) -> Any:
            return (self.weight * batch[0] - 1j).abs().square().mean()

    assert resumes_exactly(4, tmp_path, Complex, clip_norm=1.0).weight.is_complex()


def test_recomputed_activations_give_the_same_weights() -> None:
    """Activations that are recomputed in the backward pass (checkpointing) give the same weights, with dropout too."""

    def model() -> nn.Sequential:
        return nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    class Recomputes(with_model(model)):
        def loss(self, batch: Any) -> Any:
            return nn.functional.mse_loss(checkpoint(self.model, batch[0], use_reentrant=False), batch[1])

    plain, other = trained(with_model(model)), trained(Recomputes)
    assert torch.equal(plain.model[0].weight, other.model[0].weight)


@asserted_by("Accelerate test_nested_hook")
def test_hooks_of_torch_are_called() -> None:
    """torch's hooks on modules and tensors are called as ever."""
    calls: list[str] = []
    trainer = fit()
    trainer.model.register_forward_hook(lambda *_: calls.append("forward"))
    trainer.model.weight.register_hook(lambda *_: calls.append("backward"))
    after(2, trainer)
    assert calls == ["forward", "backward"] * 2


class Recurrent(Fit):
    """Carries its hidden state from batch to batch, cut off from the graph of the last (truncated backpropagation)."""

    def setup(self) -> None:
        self.model = nn.GRU(1, 3, batch_first=True)
        self.hidden = torch.zeros(1, 4, 3)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)

    def step(self, batch: Any) -> Any:
        out, hidden = self.model(batch[0][:, None], self.hidden)
        loss = (out.mean(-1) - batch[1]).square().mean()
        self.minimize(loss)
        self.hidden = hidden.detach()
        return {"loss": loss}


@asserted_by("Ignite test_gradients_on_resume_cpu")
def test_a_hidden_state_is_carried_over_a_kill(tmp_path: Path) -> None:
    """A hidden state that is an attribute (truncated backpropagation) goes on after a kill in mid-sequence."""
    resumes_exactly(4, tmp_path, Recurrent)


def test_a_graph_may_be_kept_for_another_backward() -> None:
    """`retain_graph=True` keeps a loss's graph for a second `minimize` of it in the same step."""

    class Twice(Fit):
        def setup(self) -> None:
            self.model, self.other = nn.Linear(1, 1), nn.Linear(1, 1)
            self.first = torch.optim.SGD(self.model.parameters(), lr=0.1)
            self.second = torch.optim.SGD(self.other.parameters(), lr=0.1)

        def step(self, batch: Any) -> Any:
            loss = (self.model(batch[0]) + self.other(batch[0]) - batch[1]).square().mean()
            self.minimize(loss, self.first, retain_graph=True)
            self.minimize(loss, self.second)
            return {"loss": loss}

    trainer = trained(Twice)
    assert trainer.updates(trainer.first) == trainer.updates(trainer.second) == 6


@asserted_by("Lightning test_unfreeze_and_add_param_group_function", "Lightning test_finetuning_with_ckpt_path")
def test_a_group_added_in_the_middle_is_part_of_the_run(tmp_path: Path) -> None:
    """A group of parameters that is added to an optimizer in the middle of a run is trained, saved and resumed."""

    class Adds(Fit):
        def setup(self) -> None:
            self.model = nn.Linear(1, 1)
            self.optimizer = torch.optim.SGD([self.model.weight], lr=0.1, momentum=0.9)

        def post_epoch(self) -> None:
            if len(self.optimizer.param_groups) == 1:
                self.optimizer.add_param_group({"params": [self.model.bias], "lr": 0.05})

    resumes_exactly(4, tmp_path, Adds)


@asserted_by(
    "Composer test_strict_errors", "Lightning test_strict_model_load_less_params", "torchtnt test_restore_strict"
)
def test_refuses_a_model_with_other_layers_at_a_resume(tmp_path: Path) -> None:
    """A resume with a model that has other layers than the saved one is refused before any step, naming one."""
    path = killed(2, tmp_path)
    with pytest.raises(StateError, match=r"'model' does not take the checkpoint's state: .*Missing key"):
        fit(with_model(lambda: nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))), run_dir=path, resume=True)


def test_a_module_that_is_transient_is_moved_and_not_saved() -> None:
    """A module named in `transient` (a frozen teacher loaded from elsewhere) is used, but never saved."""

    class Teacher(Fit):
        transient = ("teacher",)

        def setup(self) -> None:
            super().setup()
            self.teacher = nn.Linear(1, 1).requires_grad_(False)

        def loss(self, batch: Any) -> Any:
            return nn.functional.mse_loss(self.model(batch[0]), self.teacher(batch[0]))

    trainer = trained(Teacher)
    assert trainer.status == "finished" and not any("teacher" in name for name in capture(trainer).tensors)


def test_the_digest_sees_every_weight() -> None:
    """The digest of a run changes with a single bit of a single weight, and not with looking at it."""
    trainer = trained()
    digest = trainer.digest()
    assert trainer.digest() == digest
    with torch.no_grad():
        trainer.model.bias.copy_(torch.nextafter(trainer.model.bias, torch.tensor([9.0])))
    assert trainer.digest() != digest
    assert end(fit()) == digest
