"""The groups of the settings: what a newcomer sees of them."""

from __future__ import annotations

import pytest

from treadle.cli.settings_page import full_page, short_page
from treadle.config.groups import groups
from treadle.engine.settings import TrainerConfig
from treadle.gans.cyclegan import CycleGANConfig
from treadle.gans.pix2pix import Pix2PixConfig

FRONT = [
    *("The data", "The networks", "What the networks begin with", "The game, and how it is learnt"),
    "What is shown and measured",
]


@pytest.mark.parametrize(("kind", "more"), [(Pix2PixConfig, ["Inputs that are label maps"]), (CycleGANConfig, [])])
def test_the_front_page_of_help_has_the_groups_data_networks_game_judging_and_engine(kind, more):
    page, _ = short_page(kind(), lines=40)
    titles = [line.removesuffix(":") for line in page.splitlines() if line and not line.startswith(" ")]
    assert titles == [*FRONT, *more, "In every recipe"]


@pytest.mark.parametrize("kind", [Pix2PixConfig, CycleGANConfig])
def test_every_setting_of_translation_belongs_to_a_group(kind):
    own = [group for group in groups(kind) if not issubclass(TrainerConfig, group.owner)]
    assert all(group.owner is not kind for group in own), "a rest, under the name of the config"
    assert "Settings of" not in full_page(kind())
