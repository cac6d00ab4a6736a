"""Takes the guide's pictures of the studio: each domain after some training, a phone's width, dark and light.

    python docs/picture_studio.py             all of them (some minutes), into docs/images
    python docs/picture_studio.py image nerf  some of them

Needs the page (`make studio` builds it), a Chromium and playwright.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from treadle.studio.client import StudioClient
from treadle.studio.protocol import Save

IMAGES = Path(__file__).parent / "images"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]


@dataclass(frozen=True)
class Shot:
    """A picture: what is trained, how far, and how wide and bright the page is."""

    recipe: str
    steps: int
    settings: tuple[str, ...] = ()
    size: tuple[int, int] = (1440, 900)
    scheme: str = "dark"


SHOTS = {
    "image": Shot("image", 700),
    "sdf": Shot("sdf", 300, scheme="light"),
    "nerf": Shot("nerf", 500),
    "splats": Shot("splats", 500, scheme="light"),
    "pix2pix": Shot("pix2pix", 120),
    "tracts": Shot("tracts", 150, scheme="light"),
    "phone": Shot("image", 400, size=(390, 844)),
}


def main(names: list[str]) -> int:
    """Take the pictures of these names, by default all."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as play, tempfile.TemporaryDirectory() as folder:
        chromium = play.chromium.launch(executable_path=browser, args=FLAGS)
        for name in names or list(SHOTS):
            shot = SHOTS[name]
            width, height = shot.size
            page = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=shot.scheme)  # type: ignore[arg-type]
            take(shot, page, IMAGES / f"studio_{name}.png", Path(folder) / name)
            page.close()
            print(f"docs/images/studio_{name}.png", flush=True)
    return 0


def take(shot: Shot, page: Page, to: Path, run: Path) -> None:
    """Train so far, pause, and take the picture."""
    command = [sys.executable, "-m", "treadle.cli", "train", shot.recipe, "--run", str(run)]
    command += ["--studio-paused", *(("--set", *shot.settings) if shot.settings else ())]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if line.startswith("studio: "))
        address = line.split()[1]
        with StudioClient(address, label="a script", timeout=None) as client:
            client.advance(shot.steps // 2)
            client.request(Save(id=0))
            client.advance(shot.steps - shot.steps // 2)
        page.goto(address)
        page.wait_for_timeout(8000)
        page.screenshot(path=to)
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
