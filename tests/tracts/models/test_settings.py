from __future__ import annotations

import pytest
import torch

from treadle.errors import UsageError
from treadle.tracts.models.settings import ModelSettings, build_model


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sizes": []}, r"sizes is \[\]: expected one or more numbers of at least 1"),
        ({"kernels": [3, 0]}, r"kernels is \[3, 0\]: expected one or more"),
        ({"sos_classes": 100}, "sos_classes is 100: expected 10 f"),
        ({"model": "lstmm"}, "model is 'lstmm': expected one of .* did you mean 'lstm'"),
        ({"heads": 0}, "heads is 0: expected at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ModelSettings(**given)  # type: ignore[arg-type]


def test_weights_are_those_of_torchs_seed() -> None:
    for kind in ("lstm", "tto", "mlp"):
        states = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            states.append(build_model(ModelSettings(model=kind), 7).state_dict())  # type: ignore[arg-type]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
        assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])
