"""That the processes of a run were started alike: with one program, the same settings, and as much data.

Those that were not would wait for messages that never come, or send others than are waited for, of which the library
below knows no better end than an abort.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from treadle.config.fields import to_dict
from treadle.data.feed import Feed
from treadle.engine.parts import Parts
from treadle.errors import UsageError
from treadle.parallel import World

OWN = ("device", "workers")
"""Settings that a process may have for itself."""


def traits(subject: object, settings: Any, parts: Parts, feeds: Mapping[str, Feed]) -> dict[str, str]:
    """What has to be the same in all processes, each by a name for people: program, settings, parameters, data.

    Paths are left out, for the same files may be somewhere else on another machine.
    """
    kind = type(subject)
    found = {"the trainer's class": kind.__qualname__, "torch": str(torch.__version__)}
    with suppress(TypeError, OSError):
        file = Path(inspect.getsourcefile(kind) or "")
        found[f"the program {file.name}"] = f"that of hash {hashlib.sha256(file.read_bytes()).hexdigest()[:8]}"
    with suppress(UsageError):  # of what no file can hold nobody can say whether it is the same
        own = {*OWN, *(name for name, value in vars(settings).items() if isinstance(value, Path))}
        found |= {name: repr(value) for name, value in to_dict(settings).items() if name not in own}
    for name, feed in feeds.items():
        if feed.samples:
            found[f"the number of samples in {name}"] = str(feed.samples)
    for name, parameter in parts.all_parameters().items():
        found[f"parameter {name}"] = f"{str(parameter.dtype).removeprefix('torch.')} {tuple(parameter.shape)}"
    return found


def check_alike(world: World, mine: Mapping[str, str]) -> None:
    """Raise UsageError, naming the first difference, where a process of `world` is not as the main one. Collective.

    Costs a message; where there is a difference, another.
    """
    digest = hashlib.sha256(json.dumps(sorted(mine.items())).encode()).hexdigest()
    if len(set(world.gather(digest))) == 1:
        return
    main, *others = world.gather(dict(mine))
    for rank, other in enumerate(others, 1):
        for name in (*main, *other):
            here, there = main.get(name, "missing"), other.get(name, "missing")
            if here != there:
                raise UsageError(
                    f"{name} is {there} in process {rank} and {here} in process 0: all processes of a run are started "
                    "with the same program, settings and data"
                )
