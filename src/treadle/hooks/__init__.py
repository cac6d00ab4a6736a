"""Ready-made hooks, one per file."""

from treadle.hooks.best_model import BestModel, load_best
from treadle.hooks.early_stopping import EarlyStopping, Patience
from treadle.hooks.examples import Examples
from treadle.hooks.kept_models import KeptModels
from treadle.hooks.periodic import Periodic
from treadle.hooks.time_limit import TimeLimit
from treadle.hooks.timing import Timing

__all__ = [
    "BestModel",
    "EarlyStopping",
    "Examples",
    "KeptModels",
    "Patience",
    "Periodic",
    "TimeLimit",
    "Timing",
    "load_best",
]
