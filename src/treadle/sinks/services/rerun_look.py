"""How Rerun's viewer opens a run: curves by what they are of, the newest pictures, things in space, what happened."""

from __future__ import annotations

from typing import Any

MOST_VIEWS = 24
"""Views of curves, and of pictures; the rest is found in the viewer's tree."""


class Look:
    """What there is of a run, and the blueprint for it.

    Attributes:
        changed: whether there is something new since `blueprint` was last made.
    """

    def __init__(self) -> None:
        self.changed = True
        self._curves: dict[str, dict[str, None]] = {}
        self._found: dict[str, dict[str, None]] = {"pictures": {}, "scenes": {}, "texts": {}, "about": {}}

    def add(self, path: tuple[str, ...]) -> None:
        """Take note of an entity: ("train", "loss"), ("pictures", "view"), ("scenes", "splats", "lines")."""
        if path[0] in self._found:
            known, name = self._found[path[0]], path[1]
        elif len(path) > 1 and path[0] != "events":
            known, name = self._curves.setdefault(group_of("/".join(path[1:])), {}), entity(path)
        else:
            return
        if name not in known:
            known[name] = None
            self.changed = True

    def blueprint(self) -> Any:
        """Scenes and pictures on the left, curves on the right, what was said and happened below."""
        import rerun.blueprint as rrb

        self.changed = False
        seen: list[Any] = [
            rrb.Spatial3DView(origin=entity(("scenes", name)), name=name) for name in self._found["scenes"]
        ]
        pictures = [rrb.Spatial2DView(origin=entity(("pictures", name)), name=name)
                    for name in list(self._found["pictures"])[:MOST_VIEWS]]  # fmt: skip
        curves = [rrb.TimeSeriesView(origin="/", contents=list(names), name=title)
                  for title, names in sorted(self._curves.items(), key=_place)[:MOST_VIEWS]]  # fmt: skip
        documents = [
            rrb.TextDocumentView(origin=entity((room, name)), name=name)
            for room in ("about", "texts")
            for name in self._found[room]
        ]
        if len(seen) > 1:
            seen = [rrb.Tabs(*seen, name="scenes")]
        if pictures:
            seen.append(pictures[0] if len(pictures) == 1 else rrb.Grid(*pictures, name="pictures"))
        above = [part for part in (
            rrb.Vertical(*seen) if len(seen) > 1 else seen[0] if seen else None,
            rrb.Grid(*curves, name="curves") if curves else None,
        ) if part is not None]  # fmt: skip
        below = rrb.Tabs(rrb.TextLogView(origin="/events", name="events"), *documents)
        return rrb.Blueprint(
            rrb.Vertical(rrb.Horizontal(*above), below, row_shares=[4, 1]) if above else below,
            rrb.TimePanel(timeline="step", state="collapsed", play_state="following"),
            rrb.BlueprintPanel(state="collapsed"),
            rrb.SelectionPanel(state="collapsed"),
            auto_views=False,
            auto_layout=False,
        )


def group_of(name: str) -> str:
    """The view that a metric's curve belongs to: its own, whatever the split; rates and weights share one each."""
    if name.endswith(".weight"):
        return "weights"
    return "learning rates" if "lr" in name.split(".") else name


def _place(curves: tuple[str, Any]) -> int:
    """Losses come first, and last what is set and not found out."""
    return {"loss": -1, "weights": 1, "learning rates": 2}.get(curves[0], 0)


def entity(path: tuple[str, ...]) -> str:
    """A path of names as Rerun writes it: what is special in a name is escaped."""
    import rerun as rr

    return str(rr.new_entity_path(list(path)))
