"""The processes of a run, and all that they ever say to one another."""

from treadle.parallel.world import ALONE, World, this_world

__all__ = ["ALONE", "World", "this_world"]
