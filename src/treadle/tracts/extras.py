"""The packages of the extra `tracts`, imported when they are first needed."""

from __future__ import annotations

import importlib
from typing import Any

from treadle.errors import UsageError


def extra(module: str, task: str) -> Any:
    """Import "nibabel" or "h5py". Raises UsageError that names it, the task and the remedy."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UsageError(f"{task} needs {module}: install it with: pip install 'treadle[tracts]'") from None


def why(error: BaseException) -> str:
    """What somebody else's reader said of a file, in one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
