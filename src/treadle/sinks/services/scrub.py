"""Keeping secrets out of what is said: an SDK's error may quote the key or the address that it was given."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

HIDDEN = "***"
LONGEST = 300
"""Characters of a message."""

_NAMES = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/\s@]+@")
_NAMED = re.compile(r"((?:key|token|secret|passw(?:or)?d|authorization|bearer)['\"]?\s*[=:]\s*)(?:bearer\s+)?['\"]?"
                    r"[^\s'\"&,;]{4,}", re.IGNORECASE)  # fmt: skip
_LONG = re.compile(r"(?<![\w/.-])(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{32,}(?![\w/.-])")


def scrub(text: str, environment: Mapping[str, str] = os.environ, *, ids: bool = False) -> str:
    """`text` in one line without secrets: values of variables named so, `user:password@`, long tokens.

    At most 300 characters are left. With `ids` long words stay: an address names a run by one.
    """
    text = " ".join(text.split())
    for name, value in environment.items():
        if len(value) >= 6 and _NAMES.search(name):
            text = text.replace(value, HIDDEN)
    text = _USER.sub(f"{HIDDEN}@", text)
    text = _NAMED.sub(lambda found: found[1] + HIDDEN, text)
    text = text if ids else _LONG.sub(HIDDEN, text)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
