"""`treadle test`: a run's model on the test data, with pictures and a report."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

from treadle.cli.common import Parser, add_at, print_results
from treadle.cli.script import add_trainer, recipe_at
from treadle.errors import UsageError
from treadle.files import existing

EXAMPLES = """  treadle test runs/image/v001
  treadle test runs/image                  its newest version
  treadle test runs/pix2pix --at best      not its final model; or --at 400
  treadle test runs/image/v001 --data other.jpg
  treadle test runs/pix2pix --set lpips_weights=lpips.safetensors
  treadle test runs/tracts --lines tracks.trk
  treadle test --ply garden.ply --data garden     splats of any program"""


def run(arguments: list[str]) -> int:
    """Evaluate, write the report into RUN/test, print what came out."""
    from treadle.recipes.actions import evaluate
    from treadle.runs.run import find_run

    parser = Parser(
        "test",
        "Evaluate a model of a run on its test data (its validation data, where "
        "it has no other), and write pictures and a report into RUN/test. Or test the splats of a PLY.",
        EXAMPLES,
    )
    parser.add_argument("run", metavar="RUN", nargs="?", help="a run's directory, or the one that holds its versions")
    add_at(parser)
    parser.add_argument("--ply", metavar="FILE", help="in place of a run, test the splats of a 3DGS PLY on the "
                        "held-out photographs of --data; the report goes beside it, into FILE-test")  # fmt: skip
    parser.add_argument("--lines", metavar="FILE", help="tractography: judge the streamlines of a TRK, TCK or TRX of "
                        "the test subject, in place of its own")  # fmt: skip
    parser.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[], dest="overrides",
                        help="override settings of the run that concern its evaluation, as YAML")  # fmt: skip
    add_trainer(parser, data="test on other data than the run's own")
    options = parser.parse_args(arguments)
    if (options.run is None) == (options.ply is None):
        parser.error("expected either RUN or --ply FILE")
    if options.ply is not None:
        return _test_ply(options)

    directory = find_run(options.run)
    recipe = recipe_at(directory, options).with_overrides(options.overrides)
    lines = None if options.lines is None else existing(options.lines, "--lines")
    results = evaluate(directory, recipe, options.at, lines)
    print(f"{results.pop('model')} of {directory} on {recipe.data or 'the data of its recipe'}")
    print_results(results)
    return 0


def _test_ply(options: Namespace) -> int:
    """Test splats that need not have come from a run."""
    from treadle.recipes.actions import tested
    from treadle.recipes.registry import load_recipe

    if options.at is not None:
        raise UsageError("--at has no meaning with --ply: leave it out")
    if options.data is None:
        raise UsageError("--ply needs the photographs to test on: give --data DIR")
    ply = existing(options.ply, "--ply")
    recipe = load_recipe("splats").with_overrides(options.overrides)
    recipe = replace(recipe, data=existing(options.data, "--data"), config=replace(recipe.config, init=str(ply)))
    with recipe.build() as trainer:
        feed = trainer.test_feed or trainer.validation_feed
        if feed is None:
            raise UsageError(f"{options.data} holds no photograph out: say which with --set every=8 or lists")
        trainer.loop.loaded = trainer.loop.taken, ply.name
        results = tested(trainer, feed, ply.with_name(f"{ply.stem}-test"), {})
    print(f"{options.ply} on {options.data}")
    print_results(results)
    return 0
