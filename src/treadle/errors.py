"""The errors a person is meant to read: one line that names the thing and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TreadleError(Exception):
    """Base of every error Treadle raises on purpose. `exit_code` is what the command line returns for it."""

    exit_code = 1


class UsageError(TreadleError):
    """Bad usage, configuration or data: the caller can mend it (exit code 2)."""

    exit_code = 2


class RunError(TreadleError):
    """The run itself failed: a non-finite loss, a hook that raised, a disk that filled (exit code 1)."""


class StateError(TreadleError):
    """State that cannot be saved or restored exactly; the message names the entry."""


class DataChanged(StateError, UsageError):
    """The data is not what it was when the state was saved (exit code 2)."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"`, or, where nothing is near, `"; known: a, b, c"` (sorted), for error messages."""
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(options)}" if options else ""


def message(error: BaseException) -> str:
    """What `str(error)` gives, as text that can be written; with somebody else's error even that may fail."""
    try:
        return str(error).encode(errors="backslashreplace").decode()
    except KeyboardInterrupt:
        raise
    except BaseException:
        return "(its message cannot be shown)"


def one_line(error: BaseException) -> str:
    """`error` as "Type: message" on one line; of a Treadle error, which says enough by itself, the message alone."""
    text = " ".join(message(error).split())
    if isinstance(error, TreadleError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
