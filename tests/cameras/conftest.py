"""What the tests of this folder share: a small capture, written by `colmap_writer`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from colmap_writer import capture_folder  # noqa: F401
