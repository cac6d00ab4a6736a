"""What the studio needs that Treadle itself does not."""

from __future__ import annotations

from treadle.errors import UsageError


def need_extra() -> None:
    """Raise UsageError, saying what to install, where the studio's libraries are not there."""
    try:
        import msgspec  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
        import websockets  # noqa: F401
    except ImportError as error:
        raise UsageError(f"the studio needs {error.name}: pip install 'treadle[studio]'") from None
