from __future__ import annotations

from pathlib import Path

import pytest

import treadle
from treadle.config.files import load
from treadle.engine.progress import Progress
from treadle.errors import UsageError
from treadle.splats.settings import SplatsConfig
from treadle.splats.strategies.adc import ADC
from treadle.splats.strategies.mcmc import MCMC

RECIPES = Path(treadle.__file__).parent / "recipes"


def recipe(name: str) -> SplatsConfig:
    return SplatsConfig(**load(RECIPES / f"{name}.yaml")["config"])


def at(step: int, steps: int = 1000) -> Progress:
    return Progress(step=step, max_steps=steps)


def test_degree_and_size_rise_with_the_run() -> None:
    config = SplatsConfig(coarse=4)
    assert [config.degree_at(at(step)) for step in (0, 99, 100, 299, 300, 999)] == [0, 0, 1, 2, 3, 3]
    assert [config.factor_at(at(step)) for step in (0, 149, 150, 299, 300, 999)] == [4, 4, 2, 2, 1, 1]
    assert SplatsConfig(degree=1).degree_at(at(900)) == 1 and SplatsConfig(coarse=1).factor_at(at(0)) == 1
    assert SplatsConfig(degree_every="50 steps").degree_at(at(149)) == 2


def test_the_papers_recipe_acts_when_the_paper_does() -> None:
    config = recipe("splats-paper")
    strategy = config.build_strategy(over_white=True)
    assert isinstance(strategy, ADC)

    def due(window) -> list[int]:
        return [step for step in range(30001) if window.due(at(step, 30000))]

    assert due(strategy.grow) == list(range(600, 15000, 100))
    assert due(strategy.reset) == [3000, 6000, 9000, 12000]
    assert (strategy.pull, strategy.small, strategy.large, strategy.faint) == (2e-4, 0.01, 0.1, 0.005)
    assert strategy.over_white and not config.build_strategy().over_white  # type: ignore[attr-defined]
    assert [config.degree_at(at(step, 30000)) for step in (999, 1000, 2000, 3000, 9000)] == [0, 1, 2, 3, 3]
    assert config.beginning() == (0.1, 1.0)
    assert {name: term.weight for name, term in config.objective().terms.items()} == {"l1": 0.8, "ssim": 0.2}


def test_the_default_has_a_fixed_budget() -> None:
    config = recipe("splats")
    strategy = config.build_strategy()
    assert isinstance(strategy, MCMC) and strategy.cap == config.cap and strategy.noise == 5e5
    assert config.beginning() == (0.5, 0.1)
    assert isinstance(recipe("splats-adc").build_strategy(), ADC)
    weights = {name: term.weight for name, term in config.objective().terms.items()}
    assert weights == {"l1": 0.8, "ssim": 0.2, "opacity": 0.003, "scale": 0.003}
    plain = {name: term.weight for name, term in SplatsConfig().objective().terms.items()}
    assert plain == {"l1": 0.8, "ssim": 0.2, "opacity": 0.01, "scale": 0.01}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"coarse": 3}, "coarse is 3: expected one of"),
        ({"factor": 0.5}, "factor is 0.5: expected at least 1"),
        ({"lists": {"tests": "a.txt"}}, "lists is .*expected the keys train, validation and test"),
        ({"weights": {"l1": "sometimes"}}, "curve 'sometimes'"),
        ({"weights": {"l1": -1}}, "loss term 'l1': weight -1"),
        ({"batch_size": 0}, "batch_size is 0: expected at least 1"),
        ({"grow_every": "often"}, "grow_every: schedule 'often'"),
        ({"strategy": "mcm"}, "strategy"),
        ({"pose_rate": "log 1 to 0"}, "pose_rate: "),
    ],
)
def test_what_cannot_be_is_refused_by_name(settings, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        SplatsConfig(**settings)
