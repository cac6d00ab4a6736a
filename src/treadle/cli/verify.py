"""`treadle verify`: does a run, taken again from a checkpoint, come to the same states?"""

from __future__ import annotations

from treadle.cli.common import Parser
from treadle.cli.script import add_trainer, recipe_at

EXAMPLES = """  treadle verify runs/image/v001             up to the newest checkpoint
  treadle verify runs/image/v001 --from 500  from the checkpoint at step 500 on
  treadle verify runs/image/v001 --from 0    the whole run"""

SHOWN = 10


def run(arguments: list[str]) -> int:
    """Verify; 0 where all digests are equal, 1 where one differs."""
    from treadle.recipes.actions import replay
    from treadle.runs.run import find_run

    parser = Parser(
        "verify",
        "Take a run's steps again from a checkpoint and compare the digest of the "
        "complete state at each later one. Exit code 1 where they differ, naming what differs.",
        EXAMPLES,
    )
    parser.add_argument("run", metavar="RUN", help="a run's directory, or the one that holds its versions")
    parser.add_argument(
        "--from", metavar="STEP", type=int, dest="start", help="the checkpoint to start from; 0: the beginning"
    )
    add_trainer(parser)
    options = parser.parse_args(arguments)
    directory = find_run(options.run)
    recipe = recipe_at(directory, options)
    verdict = replay(directory, recipe, options.start)
    steps = ", ".join(map(str, verdict.compared))
    if verdict.holds:
        print(f"verified: {directory}, replayed from step {verdict.start}, has equal digests at step {steps}")
        return 0
    print(f"differs: {directory}, replayed from step {verdict.start}, is another run at step {verdict.differs_at}")
    print(f"first difference (saved and replayed): {verdict.differences[0]}")
    for line in verdict.differences[1:SHOWN]:
        print(f"  also {line}")
    if len(verdict.differences) > SHOWN:
        print(f"  and {len(verdict.differences) - SHOWN} more entries")
    return 1
