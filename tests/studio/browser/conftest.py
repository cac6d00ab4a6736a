"""For tests of the page: a real Chromium, a tiny run with a studio, and pages that tell what goes wrong in them.

Where there is no browser, no playwright or no built page, these tests skip and say which.
"""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import torch

import treadle
from treadle import Trainer
from treadle.testing import Line, line_data

if TYPE_CHECKING:
    from treadle.studio.hook import Studio

T = TypeVar("T")
BUILT = Path(treadle.__file__).parent / "studio" / "static" / "manifest.json"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
]
SECONDS = 60.0
"""To wait for something on a loaded machine: no more than what is never there takes so long."""
HARMLESS = ("GPU stall due to ReadPixels", "WebGL")
"""What software rendering says on the console."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser for a module's tests."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install 'treadle[dev]'")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed here (Debian: apt install chromium)")
    if not BUILT.exists():
        pytest.skip("the studio's page is not built here: make page")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Opener:
    """Opens pages, each in a browser profile of its own, and notes what they complain of."""

    browser: Any
    contexts: list[Any] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __call__(self, address: str, *, clock: bool = False, **options: Any) -> Any:
        """A page at an address, once connected. Options are a browser context's; `clock` gives it one to be put on."""
        context = self.browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
        context.set_default_timeout(1000 * SECONDS)
        self.contexts.append(context)
        page = context.new_page()
        if clock:
            page.clock.install()
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(address)
        page.locator(".head .stage[data-tone]").wait_for()
        return page

    def _console(self, message: Any) -> None:
        # Refused by the content security policy, failed, thrown: nothing of it may happen. A cut is told as an error.
        told = message.text
        wrong = (message.type == "error" and "WebSocket connection" not in told) or "Content Security Policy" in told
        if wrong and not any(one in told for one in HARMLESS):
            self.complaints.append(told)


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Opener]:
    """Opens pages; at the test's end there must have been no error and no violation of the policy in them."""
    opener = Opener(chromium)
    yield opener
    for context in opener.contexts:
        context.close()
    assert opener.complaints == []


class Tiny(Line):
    """`Line` with something to look at."""

    def examples(self) -> dict[str, torch.Tensor]:
        """A picture of what the line gives."""
        x = torch.linspace(0, 1, 32)
        return {"ramp": (x[None] * x[:, None]).repeat(1, 1)}


@dataclass
class Driven:
    """A run that trains in a thread of its own, and its studio."""

    trainer: Trainer
    studio: Studio
    thread: threading.Thread

    @property
    def step(self) -> int:
        """Finished steps."""
        return self.trainer.progress.step

    @property
    def events(self) -> list[str]:
        """The journal's events so far."""
        return [entry["event"] for entry in self.journal]

    @property
    def journal(self) -> list[dict[str, Any]]:
        """The journal's entries so far."""
        return list(self.trainer.loop.logbook.journal)

    def wait(self, condition: Callable[[], object], what: str = "") -> None:
        """Wait until something is so; fails after some seconds."""
        done = threading.Event()
        for _ in range(int(SECONDS / 0.02)):
            if condition():
                return
            done.wait(0.02)
        raise AssertionError(f"it never came to be: {what or condition}")

    def join(self) -> None:
        """Wait until the run has ended."""
        self.thread.join(SECONDS)
        assert not self.thread.is_alive(), "it does not end"

    def wait_shown(self, page: Any) -> None:
        """Wait until a page shows that the run pauses, and where: it is told of a run's state some time later."""
        told = page.locator(f".head .stage[data-tone=paused][title='{self.trainer.loop.lifecycle.reason}']")
        told.wait_for()
        page.locator(".readout.step b", has_text=re.compile(f"^{self.step}$")).wait_for()


def eventually(check: Callable[[], T]) -> T:
    """What `check` returns, once it raises no AssertionError: for what is drawn some time after it was asked for."""
    end = time.monotonic() + SECONDS
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > end:
                raise
        time.sleep(0.05)


@pytest.fixture(name="eventually")
def _eventually() -> Callable[[Callable[[], T]], T]:
    return eventually


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Callable[..., Driven]]:
    """Begins runs with a studio, paused before their first step. Arguments beside `kind` and `studio` are settings."""
    pytest.importorskip("msgspec", reason="the studio's packages are missing: pip install 'treadle[studio]'")
    from treadle.studio.hook import Studio

    begun: list[Driven] = []

    def begin(kind: type[Trainer] = Tiny, studio: dict[str, Any] | None = None, **settings: Any) -> Driven:
        chosen = {"batch_size": 20, "seed": 0, "max_steps": 10**6, "run_dir": tmp_path / "runs" / "tiny" / "v001"}
        data = line_data()
        trainer = kind(data=data, validation_data=data, **{**chosen, **settings})
        made = Studio(trainer, quiet=True, paused=True, open_browser=False, **(studio or {}))
        thread = threading.Thread(target=trainer.train, daemon=True)
        driven = Driven(trainer, made, thread)
        begun.append(driven)
        thread.start()
        return driven

    yield begin
    for driven in begun:
        driven.trainer.commands.stop()
        driven.thread.join(SECONDS)
        driven.studio.close()
