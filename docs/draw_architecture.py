"""Draw docs/images/architecture.svg from the imports of src/treadle, and say where the house is untidy.

    python docs/draw_architecture.py            a report: rooms by floor, circles, arrows that run back up
    python docs/draw_architecture.py --write    also the picture (make drawing)
    python docs/draw_architecture.py --check    exit 1 for a circle that is too large or an arrow too many

The sources are parsed, never run. The floors are those of the `layers` contract in pyproject.toml; a room is a folder
or a file directly below the package. The package's own `__init__.py`, which loads names when they are used, is no room:
what is imported through it counts as imported from the name's home.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import textwrap
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
PICTURE = Path("docs/images/architecture.svg")
FACE = "__init__.py"

LARGEST_CIRCLE = 10
"""Files in one circle of imports, typing and deferred ones included, that `--check` puts up with."""

ARROWS_UP = 1
"""Arrows between rooms that run back up, that `--check` puts up with: engine -> runs, the door to the disk."""


class Kind(Enum):
    """How a module is imported: when the file is loaded, inside a function, or for the type checker only."""

    TOP = "top level"
    DEFERRED = "deferred"
    TYPING = "typing"


class Import(NamedTuple):
    """`source` imports `target`: paths relative to the package."""

    source: str
    target: str
    kind: Kind


# Reading -------------------------------------------------------------------------------------------------------------


@dataclass
class House:
    """A package as its files and its pyproject.toml describe it."""

    floors: list[list[str]]
    """Rooms floor by floor, from the top; rooms that no layer names are a last floor."""
    lines: dict[str, int]
    """Lines of each file."""
    purposes: dict[str, str]
    """The first line of each file's docstring."""
    imports: list[Import]
    """Every import between two files of the package, once per kind."""

    def rooms(self) -> list[str]:
        """All rooms, from the top."""
        return [room for floor in self.floors for room in floor]

    def files(self, room: str) -> list[str]:
        """The files of a room."""
        return [path for path in self.lines if room_of(path) == room]

    def size(self, room: str) -> int:
        """The lines of a room."""
        return sum(self.lines[path] for path in self.files(room))

    def purpose(self, room: str) -> str:
        """What a room is for, in its own words."""
        return self.purposes[room if room.endswith(".py") else f"{room}/{FACE}"]

    def circles(self, *kinds: Kind) -> list[list[str]]:
        """The circles of files that import one another by `kinds` of imports, largest first."""
        edges: dict[str, set[str]] = {path: set() for path in self.lines}
        for found in self.imports:
            if found.kind in kinds and FACE not in (found.source, found.target):
                edges[found.source].add(found.target)
        return sorted(_circles(edges), key=lambda circle: (-len(circle), circle))

    def arrows(self) -> dict[tuple[str, str], list[Import]]:
        """The imports behind each pair (room, room that it uses)."""
        arrows: dict[tuple[str, str], list[Import]] = defaultdict(list)
        for found in self.imports:
            pair = room_of(found.source), room_of(found.target)
            if pair[0] != pair[1] and FACE not in pair:
                arrows[pair].append(found)
        return dict(sorted(arrows.items()))

    def arrows_up(self) -> dict[tuple[str, str], list[Import]]:
        """The arrows to a higher floor, or to a neighbour on the same one."""
        height = {room: -index for index, floor in enumerate(self.floors) for room in floor}
        return {pair: found for pair, found in self.arrows().items() if height[pair[1]] >= height[pair[0]]}


def read_house(root: Path = ROOT) -> House:
    """Read the package that `root/pyproject.toml` names, from `root/src`."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    name = settings["root_package"]
    package = root / "src" / name
    paths = {path.relative_to(package).as_posix(): path for path in sorted(package.rglob("*.py"))}
    texts = {path: file.read_text(encoding="utf-8") for path, file in paths.items()}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    homes = (
        {name: found for _, found, name in _imported(trees[FACE], FACE, name, set(paths), {})} if FACE in trees else {}
    )
    imports = {
        Import(path, found, kind)
        for path, tree in trees.items()
        for kind, found, _ in _imported(tree, path, name, set(paths), homes)
        if found != path
    }
    listed = parse_floors(settings, name)
    rooms = {room_of(path) for path in paths} - {FACE}
    called = {room.removesuffix(".py"): room for room in rooms}
    floors = [[called[layer] for layer in floor if layer in called] for floor in listed]
    floors.append(sorted(rooms - {room for floor in floors for room in floor}))
    return House(
        [floor for floor in floors if floor],
        {path: text.count("\n") for path, text in texts.items()},
        {path: (ast.get_docstring(tree) or "").partition("\n")[0] for path, tree in trees.items()},
        sorted(imports, key=lambda found: (found.source, found.target, found.kind.value)),
    )


def room_of(path: str) -> str:
    """The room of a file: its top folder, or the file itself."""
    return path.partition("/")[0]


def parse_floors(settings: dict[str, Any], package: str) -> list[list[str]]:
    """The layers of the whole package in import-linter's settings, each a list of names below the package.

    Layers are written `a`, `(a)` (may be missing), `a | b` and `a : b` (on one floor). Raises SystemExit without any.
    """
    for contract in settings.get("contracts", []):
        if contract["type"] == "layers" and contract.get("containers", [package]) == [package]:
            layers = [re.split(r"[|:]", layer) for layer in contract["layers"]]
            return [[part.strip(" ()").removeprefix(f"{package}.") for part in layer] for layer in layers]
    raise SystemExit(f"pyproject.toml has no layers contract for {package}: the floors are drawn from it")


def _imported(
    tree: ast.Module, path: str, package: str, paths: set[str], homes: dict[str, str]
) -> Iterator[tuple[Kind, str, str]]:
    """Yield (kind, imported file, imported name) for all imports of the package's own modules in a file."""
    folder = [package, *path.split("/")[:-1]]
    for kind, node in _statements(tree, Kind.TOP):
        if isinstance(node, ast.ImportFrom):
            above = folder[: len(folder) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names = [(f"{module}.{alias.name}", alias.name) for alias in node.names]
        else:
            module, names = "", [(name, "") for name in _modules(node)]
        for dotted, name in names:
            found = _file(dotted, package, paths)
            if found is None and module:
                found = homes.get(name) if module == package and name in homes else _file(module, package, paths)
            if found is not None:
                yield kind, found, name


def _statements(node: ast.AST, kind: Kind) -> Iterator[tuple[Kind, ast.AST]]:
    """Yield (kind, node) for each import below `node`; one for the type checker stays that inside a function too."""
    for child in ast.iter_child_nodes(node):
        inner = kind
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and kind is Kind.TOP:
            inner = Kind.DEFERRED
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for part in child.body:
                yield from _statements(ast.Module([part], []), Kind.TYPING)
            for part in child.orelse:
                yield from _statements(ast.Module([part], []), kind)
            continue
        if isinstance(child, ast.ImportFrom) or _modules(child):
            yield kind, child
        yield from _statements(child, inner)


def _modules(node: ast.AST) -> list[str]:
    """The modules that `import a.b` or `import_module("a.b")` names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
        name = node.args[0]
        return [name.value] if isinstance(name, ast.Constant) and isinstance(name.value, str) else []
    return []


def _file(dotted: str, package: str, paths: set[str]) -> str | None:
    """The file of a module of the package, relative to it."""
    top, *parts = dotted.split(".")
    inside = "/".join(parts)
    tries = (f"{inside}.py", f"{inside}/{FACE}") if inside else (FACE,)
    return next((path for path in tries if top == package and path in paths), None)


def _circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one node, each sorted (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    circles: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(edges[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            circle = sorted(stack[at:])
            del stack[at:]
            if len(circle) > 1:
                circles.append(circle)

    for node in edges:
        if node not in index:
            visit(node)
    return circles


# Reporting -----------------------------------------------------------------------------------------------------------


def report(house: House) -> str:
    """Rooms by floor with their lines, circles with their files, arrows up with the imports behind them."""
    text = [f"{len(house.rooms())} rooms on {len(house.floors)} floors, {sum(house.lines.values()):,} lines"]
    for floor in house.floors:
        text.append("  " + "   ".join(f"{room} {house.size(room):,}" for room in floor))
    for title, kinds in (("any import", tuple(Kind)), ("imports at run time", (Kind.TOP, Kind.DEFERRED))):
        circles = house.circles(*kinds)
        text.append(f"circles by {title}: {len(circles)}, the largest has {len(circles[0]) if circles else 0} files")
        for circle in circles:
            said = f"{len(circle)}: {', '.join(circle)}"
            text.append(textwrap.fill(said, 110, initial_indent="  ", subsequent_indent="     "))
    up = house.arrows_up()
    text.append(f"arrows between rooms: {len(house.arrows())}, of which run back up: {len(up)}")
    for (room, target), found in up.items():
        text.append(f"  {room} -> {target}")
        text += [f"    {one.source} -> {one.target} ({one.kind.value})" for one in found]
    return "\n".join(text)


def faults(house: House) -> list[str]:
    """What `--check` does not put up with."""
    circles, up = house.circles(*Kind), house.arrows_up()
    said = [
        f"a circle of {len(circle)} files, more than {LARGEST_CIRCLE}: {', '.join(circle)}"
        for circle in circles
        if len(circle) > LARGEST_CIRCLE
    ]
    if len(up) > ARROWS_UP:
        pairs = ", ".join(f"{room} -> {target}" for room, target in up)
        said.append(f"{len(up)} arrows run back up, more than {ARROWS_UP}: {pairs}")
    return said


# Drawing -------------------------------------------------------------------------------------------------------------

WIDTH = 1000
LANE = 15
PAPER, BAND, BOX, EDGE, INK, PALE, LINE, DOT, RED = (
    "#fdfcf9", "#f0ede4", "#ffffff", "#c9c3b2", "#2b2b2b", "#7a766b", "#b9c6d1", "#4a6b8a", "#c0392b",
)  # fmt: skip


def draw(house: House) -> str:
    """The picture, as SVG: a row per room, and to its right a lane per room that is used, with a dot per user.

    Lines of code are rounded to two digits, so that a small change of the code is none of the picture.
    """
    rooms, arrows, up = house.rooms(), house.arrows(), house.arrows_up()
    down = {pair: found for pair, found in arrows.items() if pair not in up}
    used = [room for room in rooms if any(target == room for _, target in down)]
    gutter = 20 + 18 * len(up)
    right = WIDTH - 54 - LANE * len(used)
    lane = {room: right + 26 + LANE * index for index, room in enumerate(used)}
    svg = _Svg()

    # The head: title, the package's face, and the names of the lanes.
    top = 128
    svg.text(gutter, 40, "The house", 24, INK, weight="bold")
    for index, line in enumerate(_said(house)):
        svg.text(gutter, 64 + 19 * index, line, 13, PALE)
    for room in used:
        svg.text(lane[room] + 4, top - 8, room.removesuffix(".py"), 12, PALE, turn=-60)

    # The rows, floor by floor.
    middle: dict[str, float] = {}
    y = float(top)
    boxes = _Svg()
    for floor in house.floors:
        begin = y
        y += 5
        for room in floor:
            said = _wrapped(house.purpose(room), int((right - gutter - 30) / 6.9))
            height = 32 + 17 * len(said)
            boxes.box(gutter + 5, y, right - gutter - 5, height, BOX, EDGE)
            boxes.text(gutter + 17, y + 21, room if room.endswith(".py") else f"{room}/", 15, INK, weight="bold")
            boxes.text(right - 12, y + 21, _size(house, room), 12, PALE, anchor="end")
            for index, line in enumerate(said):
                boxes.text(gutter + 17, y + 40 + 17 * index, line, 13, INK)
            middle[room] = y + height / 2
            y += height + 5
        svg.box(gutter, begin, right - gutter + 5, y - begin, BAND, BAND)
        y += 7

    # Downwards: out of a box below its middle, into one above it.
    for target in used:
        users = [room for room, other in down if other == target]
        first = min(middle[room] for room in users) + 8
        svg.path(f"M{lane[target]} {top - 4} V{_n(first)}", LINE, dash="1 4")
        end = middle[target] - 8
        svg.path(f"M{lane[target]} {_n(first)} V{_n(end - 5)} q0 5 -5 5 H{right + 8}", LINE)
        svg.head(right + 1, end, 7, LINE)
    for room in rooms:
        lanes = [lane[target] for user, target in down if user == room]
        if lanes:
            svg.path(f"M{right} {_n(middle[room] + 8)} H{max(lanes)}", LINE)
    for (room, target), found in down.items():
        svg.dot(lane[target], middle[room] + 8, {one.kind for one in found})
    svg.add(boxes)

    # Upwards: red, in the left margin, each with its number in the list below.
    ends = {target: middle[target] - 8 for target in rooms}
    for number, (room, target) in enumerate(up, 1):
        aside, begin, end = gutter - 2 - 18 * number, middle[room] + 8, ends[target]
        ends[target] += 6
        svg.path(f"M{gutter + 5} {_n(begin)} H{aside} V{_n(end)} H{gutter - 3}", RED, width=1.8)
        svg.head(gutter + 4, end, -7, RED)
        svg.badge(aside, (begin + end) / 2, number)

    # The foot: what the marks mean, and what runs up.
    y += 20
    x = float(gutter)
    for kinds, meaning in (
        ({Kind.TOP}, "uses it"),
        ({Kind.DEFERRED}, "uses it, imported when a function needs it"),
        ({Kind.TYPING}, "names it in types only"),
    ):
        svg.dot(x + 5, y - 4, kinds)
        svg.text(x + 16, y, meaning, 12, PALE)
        x += 38 + 6.6 * len(meaning)
    for number, ((room, target), found) in enumerate(up.items(), 1):
        y += 24
        svg.badge(gutter + 7, y - 4, number)
        svg.text(gutter + 24, y, f"{room} \N{RIGHTWARDS ARROW} {target}, back up: {_causes(found)}", 12, RED)
    return svg.document(WIDTH, y + 22)


def _said(house: House) -> tuple[str, str]:
    """The head lines: how large the house is, and how tidy."""
    circle, up = max((len(files) for files in house.circles(*Kind)), default=0), len(house.arrows_up())
    size = f"about {_rounded(sum(house.lines.values()))} lines"
    return (
        f"{len(house.rooms())} rooms on {len(house.floors)} floors, {size}. A room uses only what is below it:",
        f"arrows that run back up: {up or 'none'}; files in the largest circle of imports: {circle or 'none'}.",
    )


def _wrapped(text: str, width: int) -> list[str]:
    """`text` without its marks of code and its full stop, in as few lines as fit, and these of much the same length."""
    wrapped = [
        textwrap.wrap(text.replace("`", "").rstrip("."), room, break_long_words=False) for room in range(1, width + 1)
    ]
    return min(wrapped, key=len)


def _size(house: House, room: str) -> str:
    files = len(house.files(room))
    counted = "" if room.endswith(".py") else f"{files} file{'s' * (files != 1)} \N{MIDDLE DOT} "
    return f"{counted}{_rounded(house.size(room))} lines"


def _rounded(number: int) -> str:
    """Two significant digits: 3437 is "3,400"."""
    return f"{int(float(f'{number:.1e}')):,}"


def _causes(found: list[Import]) -> str:
    first = f"{found[0].source} \N{RIGHTWARDS ARROW} {found[0].target} ({found[0].kind.value})"
    return first if len(found) == 1 else f"{first} and {len(found) - 1} more"


def _n(number: float) -> str:
    return f"{number:g}"


class _Svg:
    """Elements of a picture, drawn in order."""

    def __init__(self) -> None:
        self._elements: list[str] = []

    def add(self, other: _Svg) -> None:
        self._elements += other._elements

    def box(self, x: float, y: float, width: float, height: float, fill: str, edge: str) -> None:
        self._elements.append(
            f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" rx="5" '
            f'fill="{fill}" stroke="{edge}"/>'
        )

    def text(
        self, x: float, y: float, text: str, size: int, color: str, *, weight: str = "", anchor: str = "", turn: int = 0
    ) -> None:
        more = f' font-weight="{weight}"' * bool(weight) + f' text-anchor="{anchor}"' * bool(anchor)
        more += f' transform="rotate({turn} {_n(x)} {_n(y)})"' * bool(turn)
        self._elements.append(
            f'<text x="{_n(x)}" y="{_n(y)}" font-size="{size}" fill="{color}"{more}>{escape(text)}</text>'
        )

    def path(self, path: str, color: str, *, width: float = 1.2, dash: str = "") -> None:
        more = f' stroke-dasharray="{dash}"' * bool(dash)
        self._elements.append(f'<path d="{path}" fill="none" stroke="{color}" stroke-width="{width}"{more}/>')

    def head(self, x: float, y: float, length: int, color: str) -> None:
        """An arrow's head with its point at (x, y); a negative length points to the right."""
        self._elements.append(f'<path d="M{_n(x)} {_n(y)} l{length} -4 v8 z" fill="{color}"/>')

    def dot(self, x: float, y: float, kinds: set[Kind]) -> None:
        """A user's mark: full for an import at top level, a ring for a deferred one, small for types only."""
        radius, fill = (2.5, LINE) if kinds == {Kind.TYPING} else (4, DOT if Kind.TOP in kinds else PAPER)
        self._elements.append(
            f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{radius}" fill="{fill}" stroke="{DOT}" stroke-width="1.3"/>'
        )

    def badge(self, x: float, y: float, number: int) -> None:
        self._elements.append(f'<circle cx="{_n(x)}" cy="{_n(y)}" r="8" fill="{RED}"/>')
        self.text(x, y + 4, str(number), 11, BOX, weight="bold", anchor="middle")

    def document(self, width: float, height: float) -> str:
        head = (
            "<!-- drawn by docs/draw_architecture.py from the code: run make drawing -->\n"
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(width)} {_n(height)}" width="{_n(width)}" '
            f'height="{_n(height)}" font-family="Helvetica, Arial, sans-serif" role="img">\n'
            "<title>The rooms of Treadle, floor by floor, and which uses which</title>\n"
            f'<rect width="100%" height="100%" fill="{PAPER}"/>\n'
        )
        return head + "\n".join(self._elements) + "\n</svg>\n"


def main() -> int:
    """Report, and write or check where it is asked for; returns the exit status."""
    parser = argparse.ArgumentParser(description="Draw the house from its imports.")
    parser.add_argument("--write", action="store_true", help=f"write {PICTURE}")
    parser.add_argument("--check", action="store_true", help="exit 1 where a circle is too large or arrows run up")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout to read (default: this one)")
    options = parser.parse_args()
    house = read_house(options.root)
    print(report(house))
    if options.write:
        (options.root / PICTURE).write_text(draw(house), encoding="utf-8")
        print("wrote", PICTURE)
    said = faults(house) if options.check else []
    for line in said:
        print(line, file=sys.stderr)
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
