"""The stand-ins of the tests of pictures, here too; and `their_networks` can be imported."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "images"))

from stand_ins import noise, weights_file  # noqa: F401
