"""`treadle test`: a run's best model on the test data, with pictures and a report."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.cli.common import Parser, existing, find_run, make_report_directory, print_results
from treadle.cli.script import add_trainer, recipe_of
from treadle.errors import UsageError

if TYPE_CHECKING:
    from treadle.data.feed import Feed
    from treadle.engine.trainer import Trainer

EXAMPLES = """  treadle test runs/image/v001
  treadle test runs/image                  its newest version
  treadle test runs/image/v001 --data other.jpg
  treadle test runs/pix2pix --set lpips_weights=lpips.safetensors
  treadle test runs/tracts --lines tracks.trk
  treadle test --ply garden.ply --data garden     splats of any program"""


def run(arguments: list[str]) -> int:
    """Evaluate, write the report into RUN/test, print what came out."""
    parser = Parser(
        "test",
        "Evaluate the best model of a run on its test data (its validation data, where "
        "it has no other), and write pictures and a report into RUN/test. Or test the splats of a PLY.",
        EXAMPLES,
    )
    parser.add_argument("run", metavar="RUN", nargs="?", help="a run's directory, or the one that holds its versions")
    parser.add_argument("--ply", metavar="FILE", help="in place of a run, test the splats of a 3DGS PLY on the "
                        "held-out photographs of --data; the report goes beside it, into FILE-test")  # fmt: skip
    parser.add_argument("--data", metavar="PATH", help="test on other data than the run's own")
    parser.add_argument("--lines", metavar="FILE", help="tractography: judge the streamlines of a TRK, TCK or TRX of "
                        "the test subject, in place of its own")  # fmt: skip
    parser.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[], dest="overrides",
                        help="override settings of the run that concern its evaluation, as YAML")  # fmt: skip
    add_trainer(parser)
    options = parser.parse_args(arguments)
    if (options.run is None) == (options.ply is None):
        parser.error("expected either RUN or --ply FILE")
    if options.ply is not None:
        return _test_ply(options)

    directory = find_run(options.run)
    recipe = recipe_of(directory, options).with_overrides(options.overrides)
    if options.data:
        recipe = replace(recipe, data=existing(options.data, "--data"))
    with recipe.build() as trainer:
        results = _evaluate(trainer, directory, None if options.lines is None else existing(options.lines, "--lines"))
    print(f"best model of {directory} on {recipe.data or 'the data of its recipe'}")
    print_results(results)
    return 0


def _evaluate(trainer: Trainer, directory: Path, lines: Path | None) -> dict[str, Any]:
    from treadle.runs.best import load_best

    best = load_best(trainer.parts, directory)
    feed = trainer.test_feed or trainer.validation_feed
    if lines is not None:
        if not hasattr(trainer, "feed_of_lines"):
            raise UsageError(f"--lines: {type(trainer).__name__} does not learn where streamlines go on")
        feed = trainer.feed_of_lines(lines)
    if feed is None:
        raise UsageError(f"{type(trainer).__name__} has neither test nor validation data to test on")
    return _reported(trainer, feed, directory.absolute() / "test", {"step": best["step"]})


def _test_ply(options: Namespace) -> int:
    """Test splats that need not have come from a run."""
    from treadle.recipes.registry import load_recipe

    if options.data is None:
        raise UsageError("--ply needs the photographs to test on: give --data DIR")
    ply = existing(options.ply, "--ply")
    recipe = load_recipe("splats").with_overrides(options.overrides)
    recipe = replace(recipe, data=existing(options.data, "--data"), config=replace(recipe.config, init=str(ply)))
    with recipe.build() as trainer:
        feed = trainer.test_feed or trainer.validation_feed
        if feed is None:
            raise UsageError(f"{options.data} holds no photograph out: say which with --set every=8 or lists")
        results = _reported(trainer, feed, ply.with_name(f"{ply.stem}-test"), {})
    print(f"{options.ply} on {options.data}")
    print_results(results)
    return 0


def _reported(trainer: Trainer, feed: Feed, report: Path, results: dict[str, Any]) -> dict[str, Any]:
    from treadle.files import to_json, write_whole

    make_report_directory(report)
    results = results | trainer.test_report(report, feed)
    write_whole(report / "metrics.json", to_json(results) + "\n")
    return results | {"report": report}
