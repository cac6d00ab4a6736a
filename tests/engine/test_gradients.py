"""Sparse and complex gradients through minimize: mean, clipping, finite check, checkpoints, as of dense, real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from treadle import EMA, Trainer, UsageError
from treadle.engine.bad_steps import NonFiniteError
from treadle.engine.gradients import as_data, from_data
from treadle.testing import kill

WORDS = torch.arange(42) % 9
X = torch.linspace(-1, 1, 42)[:, None]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"accumulate": 4},
    {"clip_norm": 0.05},
    {"clip_value": 0.01, "accumulate": 2},
    {"finite_check": False, "accumulate": 4, "clip_norm": 0.05},
]


class Words(Trainer):
    """Embeddings, of which each batch has some rows several times."""

    sparse: ClassVar[bool] = True
    optimizers: ClassVar[Any] = lambda parameters: torch.optim.SGD(parameters, lr=0.5, fused=False)

    def setup(self) -> None:
        self.model = nn.Embedding(9, 2, sparse=self.sparse)
        self.optimizer = type(self).optimizers(self.model.parameters())
        self.ema = EMA(self.model, decay=0.5)

    def step(self, batch: Any) -> Any:
        loss = (self.model(batch) - batch[:, None]).square().mean()
        self.minimize(loss)
        return {"loss": loss}


class Complex(Trainer):
    """A product of complex numbers, or, as `pairs`, the same with real ones."""

    pairs: ClassVar[bool] = False

    def setup(self) -> None:
        weight = torch.randn(3, dtype=torch.complex64)
        self.weight = nn.Parameter(torch.view_as_real(weight) if self.pairs else weight)
        self.bias = nn.Parameter(torch.zeros(1))
        self.optimizer = torch.optim.SGD([self.weight, self.bias], lr=0.1, momentum=0.9, fused=False)

    def step(self, batch: Any) -> Any:
        weight = torch.view_as_complex(self.weight) if self.pairs else self.weight
        loss = ((weight.conj() * batch).abs().sum(1) + self.bias - 2).square().mean()
        self.minimize(loss)
        return {"loss": loss}


def words(kind: type[Trainer] = Words, **settings: Any) -> Any:
    data = X if issubclass(kind, Complex) else WORDS
    return kind(**({"data": data, "batch_size": 6, "max_epochs": 2, "seed": 0} | settings))


def variant(kind: type[Any], **attributes: Any) -> type[Any]:
    return type(kind.__name__, (kind,), attributes)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_complex_gradients_are_treated_as_pairs_of_real_ones(settings: dict[str, Any]) -> None:
    """Before: a raw NotImplementedError of torch's finite check."""
    plain, pairs = words(Complex, **settings), words(variant(Complex, pairs=True), **settings)
    plain.train(), pairs.train()
    assert torch.allclose(torch.view_as_real(plain.weight), pairs.weight, atol=1e-6)
    norms = [{key: value for key, value in t.metrics.items() if "norm" in key} for t in (plain, pairs)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


@pytest.mark.parametrize(
    "kind",
    [
        variant(Words, optimizers=lambda parameters: torch.optim.SparseAdam(parameters, lr=0.1)),
        variant(Words, optimizers=lambda parameters: torch.optim.SGD(parameters, lr=0.1)),
        Complex,
    ],
    ids=["SparseAdam", "SGD", "Complex"],
)
@pytest.mark.parametrize("settings", [SETTINGS[1], SETTINGS[3]], ids=str)
def test_they_resume_and_rewind_to_the_last_bit(kind: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    """Before: a StateError, at a checkpoint between two micro-batches: sparse gradients could not be saved."""
    whole = words(kind, **settings)
    whole.train()
    where = {"run_dir": tmp_path / "v001", "save_every": "1 step"}
    killed = words(kind, **settings, **where)
    for _ in range(9):
        killed.iterate()
    kill(killed)
    resumed = words(kind, **settings, **where, resume=True)
    rewound = words(kind, **settings, snapshot_every="1 step")
    for _ in range(10):
        rewound.iterate()
    for _ in range(2):
        rewound.rewind(9)
        rewound.iterate()
    for trainer in (resumed, rewound):
        trainer.train()
        assert trainer.digest() == whole.digest()


def test_sparse_averages_follow_dense_ones() -> None:
    sparse, dense = words(), words(variant(Words, sparse=False))
    sparse.train(), dense.train()
    for trainer in (sparse, dense):
        assert trainer.ema.updates == 14
    first, second = (trainer.ema.state_dict()["shadows"]["weight"] for trainer in (sparse, dense))
    assert torch.allclose(first, second, atol=1e-6) and not torch.equal(first, sparse.model.weight)


def test_an_inf_in_a_complex_gradient_is_named_before_it_reaches_the_parameter() -> None:
    class Bad(Complex):
        def step(self, batch: Any) -> Any:
            loss = (self.weight.real * 0).abs().sum().sqrt() + self.bias.sum()  # of value 0 and gradient Inf
            self.minimize(loss)
            return {"loss": loss}

    trainer = words(Bad)
    before = trainer.weight.detach().clone()
    with pytest.raises(NonFiniteError, match=r"parameter 0 of group 0, shape \(3,\) \('optimizer'\) is NaN"):
        trainer.train()
    assert torch.equal(trainer.weight, before)


def test_gradients_as_data_are_what_they_were() -> None:
    indices, values = torch.tensor([[2, 0, 2]]), torch.tensor([[1.0], [2.0], [3.0]])
    rows = torch.sparse_coo_tensor(indices, values, (4, 1), check_invariants=True)
    again = from_data(as_data(rows), torch.device("cpu"))
    assert again is not None and not again.is_coalesced(), "the order in which rows are added up decides the last bit"
    assert torch.equal(as_data(again)["indices"], indices) and torch.equal(as_data(again)["values"], values)
    again = from_data(as_data(rows.coalesce()), torch.device("cpu"))
    assert again is not None and again.is_coalesced() and torch.equal(again.to_dense(), rows.to_dense())
    for gradient in (torch.ones(2, 3).t(), torch.tensor([1 + 2j]).conj()):
        again = from_data(as_data(gradient), torch.device("cpu"))
        assert again is not None and torch.equal(again, gradient) and again.stride() == gradient.stride()
        assert again.data_ptr() != gradient.data_ptr()
    assert as_data(None) is None and from_data(None, torch.device("cpu")) is None


class Late(Words):
    """The embedding has no gradient at the first updates."""

    def setup(self) -> None:
        self.model = nn.ModuleDict({"words": nn.Embedding(9, 2, sparse=True), "head": nn.Linear(2, 1)})
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def step(self, batch: Any) -> Any:
        features = torch.ones(1, 2) if self.progress.step < 2 else self.model["words"](batch)
        self.minimize(self.model["head"](features).square().mean())
        return {}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (variant(Words, optimizers=torch.optim.Adam), r"'optimizer' \(Adam\) cannot take .* another from the dense"),
        (
            variant(Words, optimizers=torch.optim.SparseAdam, sparse=False),
            r"\(SparseAdam\) cannot take .* another from",
        ),
        (Late, r"'optimizer' \(SGD\) cannot take .* build it with fused=False"),
    ],
)
def test_an_optimizer_that_does_not_take_its_gradients_says_what_does(kind: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        words(kind).train()


def test_complex_parameters_in_fp16_are_refused() -> None:
    with pytest.raises(UsageError, match="complex parameters, which fp16 cannot scale: set precision='bf16'"):
        words(Complex, precision="fp16").train()


def test_a_conjugated_gradient_is_resolved_before_it_is_read() -> None:
    """Autograd hands on a conjugation that nobody has carried out; memory that is read must not lie."""

    class Conjugated(Complex):
        def step(self, batch: Any) -> Any:
            direction = torch.tensor([1 + 2j, 3 - 1j, 2j])
            self.minimize((self.weight.conj() * direction).real.sum() + self.bias.sum())
            return {}

    trainer = words(Conjugated, max_steps=1)
    before: Tensor = trainer.weight.detach().clone()
    trainer.train()
    assert torch.allclose(trainer.weight, before - 0.1 * torch.tensor([1 + 2j, 3 - 1j, 2j]))
