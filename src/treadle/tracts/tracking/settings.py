"""The settings of tracking."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.config.settings import Settings, require, setting


@dataclass(kw_only=True)
class TrackingSettings(Settings):
    """How lines grow from their seeds, and where they stop."""

    step: float = setting(1.0, above=0, common=True)
    """Millimetres from point to point: the step that the model was trained with."""
    theta: float = setting(30.0, above=0, most=180, common=True)
    """The largest angle from one step to the next, in degrees; a line that would turn more stops."""
    shortest: float = setting(10.0, least=0, common=True)
    """Lines shorter than this, in mm, are dropped."""
    longest: float = setting(300.0, above=0, common=True)
    """A line of this length, in mm, stops."""
    sampled: bool = setting(False, common=True)
    """Draw each direction from the model's distribution, in place of its likeliest one."""
    eos_stop: float | None = setting(0.5, above=0, most=1)
    """A line stops where the model thinks its end at least so likely; null: it never does."""
    backward: bool = setting(True)
    """Grow from the seed the other way, too."""
    opposite: bool = setting(True)
    """Take the opposite of a direction that would turn the line by more than 90 degrees."""
    compress: float = setting(0.0, least=0)
    """Leave out points that lie within so many mm of the line through the others; 0 keeps all."""
    per_voxel: int | None = setting(None, least=1)
    """Seeds in each voxel of the seeding mask."""
    total: int | None = setting(None, least=1)
    """Seeds in all; null takes `per_voxel`, and one for each voxel where that is null, too."""
    batch: int = setting(2000, least=1)
    """Lines that grow at once. Memory grows with it; the lines stay the same."""

    def __post_init__(self) -> None:
        """Check what one setting cannot say alone."""
        super().__post_init__()
        require(self, "total", self.total is None or self.per_voxel is None, "null beside per_voxel")
        require(self, "shortest", self.shortest <= self.longest, f"at most {self.longest}, which is the longest")
