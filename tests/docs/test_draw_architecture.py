"""The drawing of the house: imports, floors, circles, arrows up; and the committed picture is the one of the code."""

from __future__ import annotations

import importlib.util
import sys
import xml.etree.ElementTree as xml
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = ["house.roof", "(house.attic)", "house.left | (house.right) : house.far", "house.ground"]


@pytest.fixture(scope="module")
def drawing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_architecture", ROOT / "docs" / "draw_architecture.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def build(root: Path, files: dict[str, str]) -> Path:
    """A checkout with the package `house` on the floors LAYERS; rooms get an `__init__.py` of their own."""
    contract = f'[[tool.importlinter.contracts]]\nname = "floors"\ntype = "layers"\nlayers = {LAYERS}\n'
    (root / "docs" / "images").mkdir(parents=True)
    (root / "pyproject.toml").write_text(f'[tool.importlinter]\nroot_package = "house"\n{contract}')
    package = root / "src" / "house"
    for name, text in {"__init__.py": "", **files}.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent != package and not (path.parent / "__init__.py").exists():
            (path.parent / "__init__.py").write_text(
                f'"""The room {path.parent.name}: *what* it is for.\n\nMore.\n"""\n'
            )
        path.write_text(text)
    return root


def kinds(house: Any) -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for one in house.imports:
        found.setdefault((one.source, one.target), set()).add(one.kind.value)
    return found


def test_each_kind_of_import_is_told_apart(drawing: ModuleType, tmp_path: Path) -> None:
    text = (
        "import typing\nfrom typing import TYPE_CHECKING\n"
        "from house.left.a import thing\n"
        "try:\n    import house.left.b\nexcept ImportError:\n    pass\n"
        "if TYPE_CHECKING:\n    from house.left.c import C\nelse:\n    from house.left import d\n"
        "if typing.TYPE_CHECKING:\n    from house.ground import Ground\n"
        "class K:\n    from .e import at_once\n"
        "    def method(self):\n        from house.left.f import later\n        from house.left.a import later_too\n"
        "        import_module('house.left.g')\n"
        "def function():\n    if TYPE_CHECKING:\n        from . import h\n"
        "if TYPE_CHECKING:\n    def never():\n        import house.left.i\n"
    )
    names = [f"left/{name}.py" for name in "abcdefghi"]
    house = drawing.read_house(build(tmp_path, {"left/main.py": text, "ground.py": "", **dict.fromkeys(names, "")}))
    assert {target: kind for (source, target), kind in kinds(house).items() if source == "left/main.py"} == {
        "left/a.py": {"top level", "deferred"},
        "left/b.py": {"top level"},
        "left/c.py": {"typing"},
        "left/d.py": {"top level"},
        "left/e.py": {"top level"},
        "left/f.py": {"deferred"},
        "left/g.py": {"deferred"},
        "left/h.py": {"typing"},
        "left/i.py": {"typing"},
        "ground.py": {"typing"},
    }


def test_what_is_imported_through_the_face_counts_from_its_home(drawing: ModuleType, tmp_path: Path) -> None:
    face = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.roof.top import Top\nversion = 1\n"
    files = {"__init__.py": face, "roof/top.py": "from house import version\n", "ground.py": "from house import Top\n"}
    house = drawing.read_house(build(tmp_path, files))
    assert kinds(house)["ground.py", "roof/top.py"] == {"top level"}
    assert list(house.arrows_up()) == [("ground.py", "roof")]
    assert house.circles(*drawing.Kind) == []  # roof/top.py -> face -> roof/top.py is none


def test_floors_are_those_of_the_contract(drawing: ModuleType, tmp_path: Path) -> None:
    files = {"roof/a.py": "", "far/a.py": "", "left/a.py": "", "right/a.py": "", "ground.py": "", "shed.py": "\n\n"}
    house = drawing.read_house(build(tmp_path, files))
    assert house.floors == [["roof"], ["left", "right", "far"], ["ground.py"], ["shed.py"]]
    assert house.size("shed.py") == 2 and house.purpose("left") == "The room left: *what* it is for."
    parse = drawing.parse_floors
    assert parse({"contracts": [{"type": "forbidden"}, {"type": "layers", "layers": LAYERS}]}, "house") == [
        ["roof"],
        ["attic"],
        ["left", "right", "far"],
        ["ground"],
    ]
    inside = {"type": "layers", "containers": ["house.left"], "layers": ["a", "b"]}
    with pytest.raises(SystemExit, match="no layers contract"):
        parse({"contracts": [inside]}, "house")


def test_a_circle_may_be_closed_by_the_type_checker_alone(drawing: ModuleType, tmp_path: Path) -> None:
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.left.a import A\n"
    files = {
        "left/a.py": "import house.left.b\n",
        "left/b.py": "import house.left.c\n",
        "left/c.py": typed,
        "ground.py": "def later():\n    import house.left.d\n",
        "left/d.py": "import house.ground\nimport house.left.c\n",
    }
    house = drawing.read_house(build(tmp_path, files))
    assert house.circles(*drawing.Kind) == [["left/a.py", "left/b.py", "left/c.py"], ["ground.py", "left/d.py"]]
    assert house.circles(drawing.Kind.TOP, drawing.Kind.DEFERRED) == [["ground.py", "left/d.py"]]
    assert house.circles(drawing.Kind.TOP) == []


def test_arrows_up_are_those_to_higher_floors_and_to_neighbours(drawing: ModuleType, tmp_path: Path) -> None:
    files = {
        "roof/a.py": "import house.left.a\nimport house.ground\n",
        "left/a.py": "import house.left.b\nimport house.ground\n",
        "left/b.py": "import house.right.a\n",
        "right/a.py": "def later():\n    import house.roof.a\n",
        "ground.py": "",
    }
    house = drawing.read_house(build(tmp_path, files))
    assert {pair: [tuple(one)[:2] for one in found] for pair, found in house.arrows_up().items()} == {
        ("left", "right"): [("left/b.py", "right/a.py")],
        ("right", "roof"): [("right/a.py", "roof/a.py")],
    }
    text = drawing.report(house)
    assert "run back up: 2" in text and "    right/a.py -> roof/a.py (deferred)" in text
    assert "  3: left/a.py, left/b.py, right/a.py" not in text
    assert "  4: left/a.py, left/b.py, right/a.py, roof/a.py" in text


def ring(count: int) -> dict[str, str]:
    """`count` files of one room, each importing the next."""
    return {f"left/f{i}.py": f"import house.left.f{(i + 1) % count}\n" for i in range(count)}


@pytest.mark.parametrize(
    ("files", "status", "said"),
    [
        (ring(10) | {"ground.py": "import house.roof.a\n", "roof/a.py": ""}, 0, ""),
        (ring(11), 1, "a circle of 11 files"),
        ({"ground.py": "import house.roof.a\nimport house.far.a\n", "roof/a.py": "", "far/a.py": ""}, 1, "2 arrows"),
    ],
)
def test_check_fails_for_a_large_circle_and_for_a_second_arrow_up(
    drawing: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, str],
    status: int,
    said: str,
) -> None:
    root = build(tmp_path, files)
    monkeypatch.setattr(sys, "argv", ["draw_architecture.py", "--check", "--root", str(root)])
    assert drawing.main() == status
    err = capsys.readouterr().err
    assert said in err and bool(err) == bool(status)
    assert not (root / drawing.PICTURE).exists()


def test_the_picture_shows_rooms_and_arrows_and_is_the_same_each_time(drawing: ModuleType, tmp_path: Path) -> None:
    files = {
        "roof/a.py": "import house.left.a\ndef later():\n    import house.ground\n",
        "left/a.py": "import house.roof.a\n",
        "ground.py": '"""Stands & carries <all>."""\n' + "\n" * 1233,
    }
    root = build(tmp_path, files)
    picture = drawing.draw(drawing.read_house(root))
    assert picture == drawing.draw(drawing.read_house(root))
    drawn = xml.fromstring(picture)
    texts = ["".join(node.itertext()) for node in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"roof/", "left/", "ground.py", "Stands & carries <all>", "1,200 lines"} <= set(texts)
    assert "left \N{RIGHTWARDS ARROW} roof, back up: left/a.py \N{RIGHTWARDS ARROW} roof/a.py (top level)" in texts
    without = drawing.draw(drawing.read_house(build(tmp_path / "tidy", {**files, "left/a.py": ""})))
    assert drawing.RED in picture and drawing.RED not in without
    assert picture.count("<circle") > without.count("<circle")
    assert not {"script", "image", "style"} & {node.tag.rpartition("}")[2] for node in drawn.iter()}


def test_the_committed_picture_is_the_one_of_the_code(drawing: ModuleType) -> None:
    written = (ROOT / drawing.PICTURE).read_text(encoding="utf-8")
    assert written == drawing.draw(drawing.read_house()), f"{drawing.PICTURE} is out of date: run make drawing"
