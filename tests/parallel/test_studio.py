"""A studio beside a run of two processes: the main one serves, and both obey after the same step."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("msgspec", reason="the studio's packages are not installed: pip install 'treadle[studio]'")

from tests.parallel.test_disk import SETTINGS, journal
from tests.parallel.test_group import Dropping, some_data
from tests.parallel.together import together
from treadle.parallel import this_world
from treadle.parallel.launcher import without_launcher
from treadle.studio import protocol
from treadle.studio.client import StudioClient
from treadle.studio.hook import Studio

WAIT = 90


class Person(threading.Thread):
    """Drives the run through its studio, and keeps what came of it."""

    def __init__(self, studio: Studio, trainer: Any) -> None:
        super().__init__(daemon=True)
        self.studio, self.trainer, self.said = studio, trainer, {}  # type: ignore[var-annotated]

    def run(self) -> None:
        try:
            with StudioClient(self.studio.url, label="a person", timeout=WAIT) as client:
                self.ask(client)
        except BaseException as error:
            self.said["error"] = f"{type(error).__name__}: {error}"
            self.trainer.commands.stop()

    def ask(self, client: StudioClient) -> None:
        said, progress = self.said, self.trainer.loop.progress
        client.advance(4)
        said["stepped"] = progress.step
        client.request(protocol.Save(id=0))
        change = protocol.Change(what="lr_multiplier", target="optimizer", value=0.5)
        said["proposed"] = client.request(protocol.Propose(id=0, changes=[change]))[0]["after"]
        client.request(protocol.Apply(id=0, changes=[change]))
        client.run_until("step 8")
        said["kept"] = str(client.request(protocol.Rewind(id=0, step=4, keep=True)))
        said["back"] = progress.step
        said["bars"] = len(client.request(protocol.Histograms(id=0, of="parameters", bins=8)))
        client.play()


def serve(path: str) -> dict[str, Any]:
    data = some_data(54)
    trainer = Dropping(data=data, validation_data=data, run_dir=path, **SETTINGS)
    with Studio(trainer, quiet=True, open_browser=False, paused=True) as studio:
        person = Person(studio, trainer)
        if this_world().main:
            person.start()
        summary = trainer.train()
        if this_world().main:
            person.join(WAIT)
        rates = trainer.overview().learning_rates
        return {"said": person.said, "done": [summary.status, summary.step, trainer.digest(), rates]}


def test_both_obey_what_a_client_asks_after_the_same_step(tmp_path: Path) -> None:
    found = together(2, tmp_path, serve, str(tmp_path / "run"))
    said = found[0]["said"]
    assert "error" not in said, said
    assert said.pop("bars") > 0 and said.pop("kept").endswith("v002")
    assert said == {"stepped": 4, "proposed": 0.5, "back": 4}
    assert found[1]["said"] == {} and found[0]["done"] == found[1]["done"]
    assert found[0]["done"][:2] == ["finished", 14]
    asked = [entry for entry in journal(tmp_path / "run" / "v001") if entry.get("client") == "a person"]
    assert {(entry["event"], entry["step"]) for entry in asked} >= {("edit", 4), ("rewind", 4), ("checkpoint", 4)}


def test_a_branch_is_a_process_of_its_own() -> None:
    launched = {"PATH": "/bin", "RANK": "0", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x", "MASTER_PORT": "1"}
    assert without_launcher(launched) == {"PATH": "/bin"}
