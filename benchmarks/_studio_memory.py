"""A run that `benchmarks/studio.py` looks at from outside: `python benchmarks/_studio_memory.py DIR [--studio]`.

It trains until it is killed. With a studio its address is printed before the first step; without, nothing of one is
imported.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from treadle.fields.image_trainer import ImageTrainer
from treadle.images.picture import Picture

SIDE = 512


def main(directory: str, *studio: str) -> None:
    """Train."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    waves = [np.sin(2 * np.pi * (f * x + g * y) + f) for f, g in ((2, 3), (11, 5), (40, 17))]
    picture = Picture((0.5 + 0.5 * np.stack(waves, 2)).astype(np.float32), False, "waves")
    settings = {"max_steps": 10**9, "examples_every": None, "validate_every": None, "monitor": None}
    trainer = ImageTrainer(data=picture, run_dir=Path(directory), **settings)
    if studio:
        from treadle.studio.hook import Studio

        print(Studio(trainer, quiet=True, open_browser=False).url, flush=True)
    else:
        print("alone", flush=True)
    trainer.train()


if __name__ == "__main__":
    main(*sys.argv[1:])
