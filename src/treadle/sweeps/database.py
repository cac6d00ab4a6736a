"""Where a sweep's trials are kept in place of a file: a database's URL, and what is wrong with it in a line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from treadle.errors import TreadleError, UsageError, one_line

STORAGE = "TREADLE_SWEEP_STORAGE"
"""The environment's variable for a database's URL that has a password, which no file gets."""

_PASSWORD = re.compile(r"(?<=://)([^/@:]*)(:[^@]*(?:@[^/?@]*)*)?@")  # also one with a / or an @ in it, as people do
_SQLITE = re.compile(r"(sqlite(?:\+\w+)?:///?)([^?]*)(.*)")


def without_password(url: str) -> str:
    """A database's URL as it may be written into a file."""
    return _PASSWORD.sub(lambda match: f"{match[1]}@" if match[1] else "", url)


def url_given(given: str | None) -> str | None:
    """The URL of a database as it is given here, else by the environment; None for neither.

    A file's path in it is made absolute: the sweep is gone on with from elsewhere. Raises UsageError for a password in
    `given`, for what is no URL, and for a database that would be another one for each process.
    """
    secret = _secret()
    if given is None:
        return secret
    if without_password(given) != given and ":" in given.partition("://")[2].rpartition("@")[0]:
        raise UsageError(
            f"storage: a password is kept out of command lines and files: set {STORAGE} to the whole URL, or use what "
            "the database's own client reads (PGPASSWORD, ~/.pgpass)"
        )
    url = _whole(given)
    return secret if secret is not None and without_password(secret) == url else url


def url_known(known: str | None) -> str | None:
    """The URL of a sweep's database, with the password where the environment has one; `known` is what its plan says."""
    secret = None if known is None else _secret()
    return secret if secret is not None and without_password(secret) == known else known


def _secret() -> str | None:
    url = os.environ.get(STORAGE)
    return _whole(url) if url else None


def _whole(url: str) -> str:
    said = f"storage is {without_password(url)!r}"
    if "://" not in url:
        raise UsageError(f"{said}: expected a database's URL, such as sqlite:///trials.db")
    match = _SQLITE.fullmatch(url)
    if match is None:
        return url
    if not match[2] or ":memory:" in url or "mode=memory" in url:
        raise UsageError(f"{said}: it would end with its process; name a file, such as sqlite:///trials.db")
    return url if match[2].startswith("file:") else f"{match[1]}{Path(match[2]).expanduser().absolute()}{match[3]}"


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Within, what a database or a file refuses is a UsageError in a line; `what` is called unusable by it."""
    try:
        yield
    except (TreadleError, KeyboardInterrupt):
        raise
    except Exception as error:
        why = one_line(error)
        cause: BaseException | None = error
        while cause is not None:
            if type(cause).__module__.startswith("sqlalchemy"):  # what a database says; Optuna's words are a guess
                why = one_line(cause)
            if isinstance(cause, ModuleNotFoundError):
                why = f"it needs the Python module {cause.name}: install what has it, or name another driver in the URL"
            cause = cause.__cause__
        why = without_password(why.partition(" (Background on this error")[0])
        raise UsageError(f"{what} cannot be used: {why}") from error
