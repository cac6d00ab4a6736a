"""A batch as files: what is done to lines, to be looked at in any viewer of streamlines."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from treadle.errors import UsageError
from treadle.tracts.feeds.tract_feed import TractFeed
from treadle.tracts.files import write_streamlines
from treadle.tracts.streamlines import Streamlines


def preview(feed: TractFeed, path: Path, *, epoch: int = 0, batch: int = 0) -> list[Path]:
    """Write the lines of one batch as a model would see them: cut, turned round and shaken as the settings say.

    Lines that the feed turns in space (`rotate`) are shown where they are read. Known of each line: `line`, its number
    among those of its subject; `whole`, 1 where its last point is an end and not a cut.

    Args:
        feed: whose batch; it has its seed.
        path: TRK, TCK or TRX. Where the batch has lines of several subjects each has a file, named "path-subject".
        epoch, batch: which one, both from 0.

    Returns:
        The files.

    Raises:
        UsageError: no such batch, or a file that cannot be written.
    """
    plan = feed.plan(epoch)
    if not 0 <= batch < len(plan):
        raise UsageError(f"batch {batch} of epoch {epoch}: it has {len(plan)}, counted from 0")
    loader = feed.loader
    found = list(loader.parts(feed.seed, epoch, plan[batch]))
    written = []
    for number, parts in found:
        space = loader.spaces[number]
        own = (parts.lines - loader.firsts[number]).astype(np.float32)
        known = {"line": own[:, None], "whole": parts.whole.astype(np.float32)[:, None]}
        name = path if len(found) == 1 else path.with_stem(f"{path.stem}-{loader.names[number]}")
        write_streamlines(name, Streamlines(parts.seen / space.voxel_sizes, parts.offsets, known), space)
        written.append(name)
    return written
