"""Makes `lines_cases` importable, here and in spawned workers (which inherit sys.path)."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
