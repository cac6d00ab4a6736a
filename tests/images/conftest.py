"""The stand-ins, for all tests of this folder."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from stand_ins import noise, weights_file  # noqa: F401
