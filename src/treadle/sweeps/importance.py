"""How much of what tells good trials from others each setting is."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

from treadle.sweeps.search import Choices, parse_dimension
from treadle.sweeps.trials import Sweep

LEAST = 6
"""Finished trials before which nothing is said of it."""
TOP = 4
"""Trials at least that count as good ones, where half of them are more."""


def importance_of(sweep: Sweep) -> Mapping[str, float]:
    """By setting, the most important first; they add up to 1. Empty for few trials, equal ones, and without Optuna.

    It is Optuna's PED-ANOVA: how far the values of the good trials, a tenth of all but at least four, are from those of
    all.
    """
    finished = [(trial, trial.value) for trial in sweep.trials if trial.state == "finished"]
    known = [(trial, value) for trial, value in finished if value is not None and math.isfinite(value)]
    if len(known) < LEAST or len({value for _, value in known}) < 2:
        return {}
    try:
        import optuna
    except ImportError:
        return {}
    kinds: Any = optuna.distributions
    dims = {name: parse_dimension(name, values) for name, values in sweep.planned.plan.search.items()}
    spaces: dict[str, Any] = {}
    for name, dim in dims.items():
        drawn = [trial.drawn[name] for trial, _ in known]
        if isinstance(dim.domain, Choices):
            spaces[name] = kinds.CategoricalDistribution(list(dim.domain.values))
        elif all(isinstance(value, int) for value in drawn):
            spaces[name] = kinds.IntDistribution(int(dim.domain.low), int(dim.domain.high), log=dim.domain.log)
        else:
            spaces[name] = kinds.FloatDistribution(dim.domain.low, dim.domain.high, log=dim.domain.log)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(direction="maximize" if sweep.planned.plan.direction == "max" else "minimize")
        study.add_trials(
            [optuna.create_trial(params=dict(trial.drawn), distributions=spaces, value=value) for trial, value in known]
        )
        share = max(0.1, min(0.5, TOP / len(known)))
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=share)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    if not all(map(math.isfinite, found.values())):
        return {}
    return {name: float(value) for name, value in sorted(found.items(), key=lambda item: -item[1])}
