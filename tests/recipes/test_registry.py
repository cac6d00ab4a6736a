"""Recipes by name, by file and by entry point; and what is said about broken ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from treadle.config.files import dumps
from treadle.errors import UsageError
from treadle.recipes import registry
from treadle.recipes.registry import list_recipes, load_recipe
from treadle.runs import names
from treadle.runs.names import trainer_name

PACK = '''
from dataclasses import dataclass
from treadle import Trainer, TrainerConfig

@dataclass(kw_only=True)
class Config(TrainerConfig):
    width: int = 8

class PackTrainer(Trainer):
    """Trains the pack.

    More words.
    """
    Config = Config

class NoTrainer:
    pass
'''


@pytest.fixture(autouse=True)
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed third-party distribution with good and broken entry points."""
    site = tmp_path / "site"
    (site / "their_pack").mkdir(parents=True)
    (site / "their_pack" / "__init__.py").write_text(PACK)
    (site / "their_pack" / "spot.yaml").write_text(
        "description: spots\ntrainer: pack\ndata: pictures\nconfig:\n  width: 3\n"
    )
    info = site / "their_pack-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-pack\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[treadle.recipes]\npack = their_pack:PackTrainer\nspot = their_pack:spot.yaml\nalias = their_pack:spot.yaml\n"
        "gone = their_pack.nowhere:Trainer\nwrong = their_pack:NoTrainer\nimage = their_pack:NoTrainer\n"
        "nofile = their_pack:nofile.yaml\n"
    )
    monkeypatch.syspath_prepend(str(site))
    _forget()
    yield site / "their_pack"
    monkeypatch.undo()
    sys.modules.pop("their_pack", None)
    _forget()


def _forget() -> None:
    registry._files.cache_clear()
    names.registered.cache_clear()


def save(path: str | Path, document: dict) -> None:
    Path(path).write_text(dumps(document))


def refused(name: str | Path) -> str:
    with pytest.raises(UsageError) as caught:
        load_recipe(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_trainer_by_entry_point_is_a_recipe_with_its_defaults() -> None:
    recipe = load_recipe("pack")
    assert recipe.trainer_class.__name__ == "PackTrainer"
    assert recipe.config.width == 8 and recipe.data is None
    assert recipe.description == "Trains the pack."
    assert trainer_name(recipe.trainer_class) == "pack"


def test_a_file_by_entry_point_is_a_recipe(pack: Path) -> None:
    recipe = load_recipe("spot")
    assert (recipe.name, recipe.trainer, recipe.config.width) == ("spot", "pack", 3)
    assert load_recipe("alias").name == "alias"  # the name that it was asked for, not the file's
    assert recipe.data == pack / "pictures"  # relative to the recipe, wherever it is used from


def test_a_documents_round_trip_reproduces_the_recipe(tmp_path: Path) -> None:
    recipe = load_recipe("spot").with_overrides(["width=5", "seed=3"])
    save(tmp_path / "config.yaml", recipe.document())
    again = load_recipe(tmp_path / "config.yaml")
    assert again.config == recipe.config and again.data == recipe.data and again.trainer == "pack"
    assert again.name == "pack"


def test_where_data_are_given_a_recipe_may_have_other_settings(pack: Path, tmp_path: Path) -> None:
    document = {
        "trainer": "pack",
        "config": {"max_steps": 800, "width": 2},
        "with_data": {"max_steps": None, "max_epochs": 200},
    }
    save(tmp_path / "a.yaml", document)
    recipe = load_recipe(tmp_path / "a.yaml")
    assert (recipe.config.max_steps, recipe.config.max_epochs) == (800, None)
    given = recipe.for_given_data(pack)
    assert (given.config.max_steps, given.config.max_epochs, given.config.width, given.data) == (None, 200, 2, pack)
    later = given.with_overrides(["max_epochs=5"]).for_given_data(tmp_path)
    assert later.config.max_epochs == 5 and later.data == tmp_path, "what a person said since stays"
    assert "with_data" not in given.document() and given.document()["config"]["max_epochs"] == 200
    save(tmp_path / "b.yaml", document | {"data": str(pack)})
    named = load_recipe(tmp_path / "b.yaml")
    assert (named.config.max_steps, named.config.max_epochs, named.data) == (None, 200, pack)


STEPS = {"image", "nerf", "nerf-photos", "sdf", "splats", "splats-adc", "splats-paper"}


@pytest.mark.parametrize("path", sorted((Path(registry.__file__).parent).glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_as_long_for_given_data_as_they_need(path: Path) -> None:
    """Steps stay where each draws points, rays or views from all of one scene: those have no epochs to count."""
    recipe = load_recipe(path.stem).for_given_data(path)
    config = recipe.config
    if path.stem in STEPS:
        assert config.max_steps is not None and config.max_epochs is None
    else:
        assert config.max_steps is None and config.max_epochs >= (recipe.trainer_class.least_epochs or 10)


def test_a_file_may_be_named_by_its_path_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save("mine.yaml", {"trainer": "pack", "config": {"width": 2}})
    assert load_recipe("mine.yaml").config.width == 2
    assert load_recipe("mine.yaml").name == "mine"
    save("empty.yaml", {"trainer": "pack", "config": None})
    assert load_recipe("empty.yaml").config.width == 8


def test_overrides_are_checked_like_files() -> None:
    with pytest.raises(UsageError, match=r"--set: widht is not a setting of Config; did you mean 'width'\?"):
        load_recipe("pack").with_overrides(["widht=3"])
    with pytest.raises(UsageError, match=r"--set: width is 'x': expected a whole number"):
        load_recipe("pack").with_overrides(["width=x"])
    with pytest.raises(UsageError, match=r"--set: batch_size is 0: expected at least 1"):
        load_recipe("pack").with_overrides(["batch_size=0"])


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"trainer": "pak"}, "trainer 'pak' is unknown; did you mean 'pack'?"),
        ({"trainer": "os:system"}, "trainer 'os:system' is not in the registry, and a file cannot name code"),
        ({"trainer": 3}, "trainer is 3: expected text"),
        ({"config": {}}, "the key 'trainer' is missing: expected a name such as"),
        ({"trainer": "pack", "configs": {}}, "'configs' is not a key of a recipe; did you mean 'config'?"),
        ({"trainer": "pack", "config": [1]}, "config is [1]: expected a group of settings"),
        ({"trainer": "pack", "config": {"widht": 3}}, "config.widht is not a setting of Config; did you mean 'width'?"),
        ({"trainer": "pack", "data": 3}, "data is 3: expected a path, or null"),
        ({"trainer": "pack", "description": 3}, "description is 3: expected text, or null"),
        ({"trainer": "pack", "with_data": {"widht": 3}}, "with_data.widht is not a setting of Config; did you mean 'w"),
        ({"trainer": "pack", "with_data": 3}, "with_data is 3: expected a group of settings"),
        ({"trainer": "gone"}, "trainer 'gone' (their_pack.nowhere:Trainer) cannot be imported: ModuleNotFoundError"),
        ({"trainer": "wrong"}, "trainer 'wrong' (their_pack:NoTrainer) is not a subclass of treadle.Trainer"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_named_with_its_file(document: dict, expected: str, tmp_path: Path) -> None:
    save(tmp_path / "a.yaml", document)
    message = refused(tmp_path / "a.yaml")
    assert expected in message and message.startswith(f"{tmp_path / 'a.yaml'}: ")


def test_unknown_recipes_are_named_with_the_nearest() -> None:
    assert refused("spott") == "unknown recipe 'spott'; did you mean 'spot'? (or give a YAML file)"
    assert "no such file" in refused("spott.yaml")


def test_a_broken_entry_point_breaks_only_itself() -> None:
    rows = {row.name: row for row in list_recipes()}
    assert rows["pack"].description == "Trains the pack." and rows["pack"].origin == "their-pack"
    assert rows["spot"].description == "spots" and rows["spot"].origin == "their-pack"
    assert "cannot be imported" in rows["gone"].problem
    assert "is not a subclass" in rows["wrong"].problem
    assert "no such file" in rows["nofile"].problem


def test_treadles_own_names_cannot_be_taken_over() -> None:
    assert names.registered()["image"].value == "treadle.fields.image_trainer:ImageTrainer"


def test_every_shipped_recipe_loads() -> None:
    own = [row for row in list_recipes() if row.origin == "treadle"]
    for row in own:
        assert row.description and not row.problem
        assert load_recipe(row.name).name == row.name
