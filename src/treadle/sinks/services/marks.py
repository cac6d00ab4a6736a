"""What of a run has reached a service: the mark that is kept beside the run, in `logs/sent.<name>.json`."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from typing import Any, Literal

from treadle.files import file_name, to_json

KNOWN = 1000
"""Things that a mark knows one by one; of what was sent before them it knows how far that went."""
GAPS = 100
"""Gaps that it knows of, for each kind of thing; more are taken together."""

Verdict = Literal["new", "same", "other"]


class Mark:
    """What has been sent of a run, so that nothing is sent twice and what is missing is found.

    Each thing has a kind ("scalars", "picture", "text", "scene", "event"), a name, a position (its step; of events the
    time) and a checksum. The newest are known one by one; of the others it is known that all up to a position were
    sent, but for gaps.

    Args:
        id: the run's.
        where: where people find it at the service.
    """

    def __init__(self, id: str, where: str = "") -> None:
        self.id, self.where = id, where
        self.summary = 0
        """The checksum of the summary that was sent; 0: none was."""
        self.artifacts: dict[str, int] = {}
        """The checksums of the artifacts that were sent, by kind and name."""
        self.through: dict[str, float] = {}
        self.gaps: dict[str, list[tuple[float, float]]] = {}
        self._known: dict[tuple[str, str, float], list[int]] = {}
        self._seen: dict[tuple[str, str, float], int] = {}

    def judge(self, kind: str, name: str, at: float, checksum: int, source: str = "") -> Verdict:
        """Whether a thing has been sent: "same" where it has, "other" where other scalars have in their place.

        A run that is continued repeats what it logged after its checkpoint: the first time that a thing comes it is
        compared with the first that was sent, and so on. `source` is "files" for what is read from the run's files,
        and "again" for what a process may have sent that was killed then.
        """
        key = kind, name, at
        sent, count = self._known.get(key, []), self._seen.get(key, 0)
        if source == "again" and checksum in sent:
            return "same"
        if kind == "event":  # no two are alike: each says when it happened
            return "same" if checksum in sent or (source == "files" and self._before(kind, at)) else "new"
        if count < len(sent):
            if checksum == sent[count]:
                self._seen[key] = count + 1
                return "same"
            return "other" if kind == "scalars" else "new"
        return "same" if not sent and self._before(kind, at) else "new"

    def add(self, kind: str, name: str, at: float, checksum: int) -> None:
        """The service has taken a thing."""
        key = kind, name, at
        self._known.setdefault(key, []).append(checksum)
        self._seen[key] = len(self._known[key])
        while len(self._known) > KNOWN:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._seen.pop(oldest, None)
            self.through[oldest[0]] = max(self.through.get(oldest[0], -math.inf), oldest[2])

    def lack(self, kind: str, first: float, last: float) -> None:
        """Things of that kind from `first` to `last` were not taken."""
        gaps = sorted([*self.gaps.get(kind, []), (first, last)])
        merged = gaps[:1]
        for gap in gaps[1:]:
            if gap[0] <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(merged[-1][1], gap[1])
            else:
                merged.append(gap)
        while len(merged) > GAPS:
            near = min(range(len(merged) - 1), key=lambda place: merged[place + 1][0] - merged[place][1])
            merged[near : near + 2] = [(merged[near][0], merged[near + 1][1])]
        self.gaps[kind] = merged

    def filled(self) -> None:
        """All that the run's files had of the gaps has been sent now."""
        self.gaps = {}

    def cut(self, step: int) -> None:
        """What was sent of later steps is given up."""
        for key in [key for key in self._known if key[0] != "event" and key[2] > step]:
            del self._known[key]
        self._seen = {key: count for key, count in self._seen.items() if key in self._known}
        for kind in [kind for kind in self.through if kind != "event"]:
            self.through[kind] = min(self.through[kind], step)
            self.gaps[kind] = [(first, min(last, step)) for first, last in self.gaps.get(kind, []) if first <= step]

    @property
    def known(self) -> bool:
        """Whether anything has been sent."""
        return bool(self._known or self.through)

    def may_lack(self, kind: str, at: float) -> bool:
        """Whether something of that kind and position may not have been sent; `judge` then knows."""
        return not self._before(kind, at)

    def _before(self, kind: str, at: float) -> bool:
        """Whether it lies before what is known one by one, and in no gap."""
        if at > self.through.get(kind, -math.inf):
            return False
        return not any(first <= at <= last for first, last in self.gaps.get(kind, ()))

    def begin(self) -> None:
        """A session begins: what it logs is compared with what was sent, from the beginning."""
        self._seen = {}

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "id": self.id,
            "where": self.where,
            "summary": self.summary,
            "artifacts": self.artifacts,
            "through": self.through,
            "gaps": {kind: [list(gap) for gap in gaps] for kind, gaps in self.gaps.items() if gaps},
            "known": [[*key, sums] for key, sums in self._known.items()],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Mark:
        """What `to_dict` gave. Raises ValueError for anything else."""
        try:
            mark = cls(str(data["id"]), str(data["where"]))
            mark.summary = int(data["summary"])
            mark.artifacts = {str(name): int(value) for name, value in data["artifacts"].items()}
            mark.through = {str(kind): float(at) for kind, at in data["through"].items()}
            mark.gaps = {str(kind): [(float(a), float(b)) for a, b in gaps] for kind, gaps in data["gaps"].items()}
            mark._known = {(str(kind), str(name), at): [int(s) for s in sums] for kind, name, at, sums in data["known"]}
            mark._seen = {key: len(sums) for key, sums in mark._known.items()}
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError("it is no mark of what was sent") from error
        return mark


def read_mark(content: bytes) -> Mark | None:
    """The mark in a file's content; None where it is damaged: then all is sent again."""
    try:
        return Mark.from_dict(json.loads(content))
    except (ValueError, RecursionError):
        return None


def identity(what: str, head: Mapping[str, Any], body: bytes | memoryview = b"") -> tuple[str, float, int]:
    """The name, position and checksum of something that is sent: what a mark knows it by."""
    if what == "scalars":
        return head["split"], head["step"], checksum(head["values"])
    if what == "event":
        entry = head["entry"]
        return str(entry["event"]), float(entry.get("time", 0.0)), checksum(entry)
    name = file_name(head["name"])  # the name that its file has
    if what == "text":
        return name, head["step"], checksum(head["text"].rstrip("\n"))
    return name, head["step"], checksum(head.get("shape", head.get("arrays")), body)


def checksum_of_summary(values: Mapping[str, Any]) -> int:
    """The checksum of a summary, but for how long the run took: that goes on while services are told."""
    return checksum({name: value for name, value in values.items() if name != "seconds"})


def checksum(*content: Any) -> int:
    """A checksum of plain data and bytes, the same for the same content in every process; never 0."""
    total = 0
    for part in content:
        total = zlib.crc32(part if isinstance(part, bytes | memoryview) else to_json(part).encode(), total)
    return total or 1
