"""`treadle tracts preview`: one batch of a recipe's training, as a file for any viewer of streamlines."""

from __future__ import annotations

from pathlib import Path

from treadle.cli.common import Parser, shown
from treadle.errors import UsageError

EXAMPLES = """  treadle tracts preview tracts --data data.h5 --out batch.trk
  treadle tracts preview tracts --data data.h5 --out batch.trk --set split=0.5 noise=0.1
  treadle tracts preview runs/tracts/v001/config.yaml --out batch.trk --epoch 3 --batch 7
  treadle tracts preview tracts --out batch.trk --validation"""


def run(arguments: list[str]) -> int:
    """Write a batch; returns the exit code."""
    parser = Parser(
        "tracts preview",
        "Write one batch of a training as streamlines: resampled, cut, turned round and shaken as the recipe says. "
        "Lines turned in space (rotate) are shown where they are read.",
        EXAMPLES,
        usage="treadle tracts preview RECIPE --out FILE [--data FILE.h5] [--set KEY=VALUE ...]\n"
        "                              [--epoch N] [--batch N] [--validation]",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe's name, a YAML file, or a run's config.yaml")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True,
                        help="TRK, TCK or TRX; with lines of several subjects one file each")  # fmt: skip
    parser.add_argument("--data", metavar="FILE.h5", help="prepared data, instead of the recipe's")
    parser.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[], dest="overrides",
                        help="override settings, as YAML")  # fmt: skip
    parser.add_argument("--epoch", metavar="N", type=int, default=0, help="the epoch, from 0")
    parser.add_argument("--batch", metavar="N", type=int, default=0, help="the batch, from 0")
    parser.add_argument("--validation", action="store_true", help="a batch of the validation: as the lines are")
    options = parser.parse_args(arguments)
    from treadle.cli.train import resolved
    from treadle.engine.settings import TrainerConfig
    from treadle.recipes.registry import load_recipe
    from treadle.tracts.data import load_tracts
    from treadle.tracts.feeds.preview import preview
    from treadle.tracts.feeds.settings import LinesSettings
    from treadle.tracts.feeds.tract_feed import TractFeed

    recipe = resolved(load_recipe(options.recipe), options.recipe, options, [])
    config = recipe.config
    if not isinstance(config, LinesSettings) or not isinstance(config, TrainerConfig):
        raise UsageError(f"treadle tracts preview: the recipe {options.recipe!r} does not train on streamlines")
    if options.epoch < 0:
        raise UsageError(f"--epoch {options.epoch}: expected 0 or more")
    config.lazy = True  # one batch is read, not everything
    data = load_tracts(recipe.data)
    subjects = data.validation if options.validation else data.training
    feed = TractFeed(subjects, config, training=not options.validation, ends=True, features=False)
    feed.bind(config.seed, "cpu")
    paths = preview(feed, options.out, epoch=options.epoch, batch=options.batch)
    print(f"batch {options.batch} of epoch {options.epoch}: {', '.join(shown(path) for path in paths)}")
    return 0
