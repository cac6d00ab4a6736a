"""The stand-ins of the tests of pictures, here too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "images"))

from stand_ins import noise, weights_file  # noqa: F401
