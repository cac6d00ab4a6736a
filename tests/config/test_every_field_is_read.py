"""No knob without effect: every setting of every trainer is read by the code that runs, not only exported."""

from __future__ import annotations

import ast
import dataclasses
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

import treadle
from treadle import TrainerConfig
from treadle.recipes.registry import trainer
from treadle.runs.names import comes_with_treadle, registered
from treadle.testing import Line, line_data

PACKAGE = Path(treadle.__file__).parent
BOOKKEEPING = (PACKAGE / "config", PACKAGE / "engine" / "settings.py")
"""Files that handle every field alike; what they read does not count."""


def test_every_field_of_the_base_config_is_read_while_a_run_goes(tmp_path: Path) -> None:
    read: set[str] = set()

    @dataclasses.dataclass(kw_only=True)
    class Watched(TrainerConfig):
        def __getattribute__(self, name: str) -> Any:
            caller = Path(sys._getframe(1).f_code.co_filename)
            if caller.is_relative_to(PACKAGE) and not any(caller.is_relative_to(place) for place in BOOKKEEPING):
                read.add(name)
            return super().__getattribute__(name)

    class Spoiled(Line):
        Config: ClassVar[type[TrainerConfig]] = Watched
        spoiled = False  # one bad step, so that what is about recovery is read too

        def loss(self, batch: Any) -> torch.Tensor:
            if self.progress.step == 1 and not self.spoiled:
                self.spoiled = True
                return super().loss(batch) * torch.nan
            return super().loss(batch)

    data = line_data(64)
    settings = {"max_epochs": 2, "patience": 3, "max_time": 60.0, "device": "cpu", "on_bad_step": "skip"}
    trainer = Spoiled(data=data, validation_data=data, run_dir=tmp_path / "line", **settings)
    trainer.train()
    trainer.test(data)
    fields = {field.name for field in dataclasses.fields(TrainerConfig)}
    assert fields - read == set()


@pytest.mark.parametrize("name", [name for name, point in registered().items() if comes_with_treadle(point)])
def test_every_field_of_a_shipped_trainer_is_read_somewhere(name: str) -> None:
    trainer_class = trainer(name)
    domain = PACKAGE / registered()[name].value.split(".")[1]
    own = {field.name for field in dataclasses.fields(trainer_class.Config)}
    own -= {field.name for field in dataclasses.fields(TrainerConfig)}
    shared = PACKAGE / "data" / "captures.py", PACKAGE / "runs" / "init.py"  # what several packs read in one place
    read = set().union(*(reads(path) for path in (*domain.rglob("*.py"), *shared)))
    assert own - read == set()


def reads(path: Path) -> set[str]:
    """The names x in every `config.x`, `settings.x`, `a.config.x` or `a.settings.x` loaded outside `__post_init__`.

    In the methods of a class named ...Config or ...Settings, `self.x` counts too; and where one of them takes
    `getattr(self, x)` for each x of a table, the keys of the file's tables do.
    """
    tree = ast.parse(path.read_text())
    configs = [
        node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name.endswith(("Config", "Settings"))
    ]
    own = {id(inner) for config in configs for inner in ast.walk(config)}
    checks = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "__post_init__"]
    skipped = {id(inner) for check in checks for inner in ast.walk(check)}
    by_name = any(
        isinstance(node, ast.Call)
        and getattr(node.func, "id", None) == "getattr"
        and id(node) in own
        and id(node) not in skipped
        for node in ast.walk(tree)
    )
    tables = [node for node in ast.walk(tree) if by_name and isinstance(node, ast.Dict)]
    keys = {key.value for table in tables for key in table.keys if isinstance(key, ast.Constant)}
    return keys | {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Load)
        and id(node) not in skipped
        and (
            getattr(node.value, "id", None) in ("config", "settings")
            or getattr(node.value, "attr", None) in ("config", "settings")
            or (id(node) in own and getattr(node.value, "id", None) == "self")
        )
    }


def test_the_reader_finds_reads_and_only_reads(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "class A:\n    def __post_init__(self): self.config.checked\n"
        "    def f(self, config): config.set = 1; return self.config.seen + config.also + self.other\n"
    )
    assert reads(tmp_path / "a.py") == {"seen", "also"}
    (tmp_path / "b.py").write_text(
        "class BConfig:\n    def __post_init__(self): self.checked\n    def f(self): self.set = 1; return self.seen\n"
        "class B:\n    def f(self): return self.other\n"
    )
    assert reads(tmp_path / "b.py") == {"seen"}
    (tmp_path / "c.py").write_text(
        'TABLE = {"a": 1, "b": 2}\nclass CSettings:\n    def f(self): return [getattr(self, name) for name in TABLE]\n'
        "def build(settings): return settings.c\n"
    )
    assert reads(tmp_path / "c.py") == {"a", "b", "c"}
