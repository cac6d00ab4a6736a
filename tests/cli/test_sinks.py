"""`--log NAME[=WHERE]`: which sinks a command that trains has."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from treadle.cli.common import Parser
from treadle.cli.sinks import add_sinks, sinks
from treadle.engine.events import Hook
from treadle.sinks.console import Console
from treadle.sinks.table import SINKS
from treadle.sinks.tensorboard import TensorBoard
from treadle.sinks.visdom import DEFAULT_URL, Visdom

RUN = Path("runs/line/v001")

LINES = '''
from pathlib import Path

from treadle.sinks.base import Sink


class Lines(Sink):
    """Writes a line for each step at which something is logged."""

    def __init__(self, path="lines.txt"):
        self.path = Path(path)

    def scalars(self, step, values, split):
        with self.path.open("a") as file:
            print(split, step, file=file)


class Moody(Lines):
    def __init__(self):
        raise KeyError("mood")
'''


@pytest.fixture
def pack(site: Path) -> None:
    """The installed distribution has sinks, too."""
    (site / "line_pack" / "sinks.py").write_text(LINES)
    points = (
        "lines = line_pack.sinks:Lines\nmoody = line_pack.sinks:Moody\nbroken = line_pack.missing:Sink\n"
        "odd = line_pack.sinks:Path\nconsole = line_pack.sinks:Lines\n"
    )
    with (site / "line_pack-1.0.dist-info" / "entry_points.txt").open("a") as file:
        file.write(f"\n[treadle.sinks]\n{points}")


def chosen(*arguments: str) -> list[Hook]:
    parser = Parser("train", "Train.", "")
    add_sinks(parser)
    return sinks(parser.parse_args(arguments))


def test_the_console_needs_no_asking_and_comes_once() -> None:
    for arguments in ([], ["--log", "console"], ["--log", "console", "console"]):
        assert [type(sink) for sink in chosen(*arguments)] == [Console]


def test_several_may_be_named_each_with_its_place(tmp_path: Path) -> None:
    console, board, server, other = chosen(
        "--log", f"tensorboard={tmp_path}", "--log", "visdom", "visdom=http://[::1]:1"
    )
    assert isinstance(console, Console) and isinstance(board, TensorBoard) and board.directory == tmp_path
    assert isinstance(server, Visdom) and server.server.url == DEFAULT_URL
    assert isinstance(other, Visdom) and other.server.url == "http://[::1]:1"


@pytest.mark.parametrize("arguments", [("--log", "tensorboard"), ("--tensorboard",)])
def test_every_command_that_trains_has_them(treadle: Any, line: None, arguments: tuple[str, ...]) -> None:
    def events(run: str) -> int:
        return len(list(Path("runs/line", run).rglob("events.out.tfevents*")))

    assert treadle("train", "line", "--save-every", "5 steps", *arguments) == 0 and events("v001") == 1
    assert treadle("resume", "runs/line", "--set", "max_steps=25", *arguments) == 0 and events("v001") == 2
    assert treadle("fork", str(RUN), "--at", "20", *arguments) == 0 and events("v002") == 1
    said = [text for text in treadle.err.splitlines() if text.startswith("treadle: ")]
    warning = "treadle: --tensorboard is --log tensorboard now, and goes with the next release"
    assert said == ([warning] if arguments == ("--tensorboard",) else [])


def test_the_old_flag_for_visdom_still_works_and_says_what_it_is_called_now(capsys: pytest.CaptureFixture[str]) -> None:
    for place, url, name in (([], DEFAULT_URL, "visdom"), (["http://x:1"], "http://x:1", "visdom=http://x:1")):
        sink = chosen("--visdom", *place)[-1]
        assert isinstance(sink, Visdom) and sink.server.url == url
        said = capsys.readouterr().err
        assert said == f"treadle: --visdom is --log {name} now, and goes with the next release\n"


@pytest.mark.parametrize("command", ["train", "resume", "fork"])
def test_the_help_names_them(treadle: Any, line: None, pack: None, command: str) -> None:
    assert treadle(command, "--help") == 0
    text = " ".join(treadle.out.split()).replace("line- pack", "line-pack")
    for words in ("--log NAME[=WHERE]", "tensorboard, csv, ", ", visdom, ", "lines", "'treadle doctor' says which"):
        assert words in text
    assert "--visdom" not in text and "--tensorboard" not in text


def test_a_third_partys_sink_is_one_like_any(treadle: Any, line: None, pack: None) -> None:
    assert treadle("train", "line", "--log", "lines", "lines=others.txt", "--log-every", "5 steps") == 0
    expected = [f"train {step}" for step in (5, 10, 15, 20)]
    for name in ("lines.txt", "others.txt"):
        assert [text for text in Path(name).read_text().splitlines() if text.startswith("train")] == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lins", "unknown sink 'lins'; did you mean 'lines'?"),
        ("x", "unknown sink 'x'; known: " + ", ".join(sorted({*SINKS, "broken", "lines", "moody", "odd"}))),
        ("broken", "the sink 'broken' (line_pack.missing:Sink) cannot be imported: ModuleNotFoundError: "),
        ("odd", "the sink 'odd' (line_pack.sinks:Path) is not a subclass of treadle.sinks.base.Sink"),
        ("moody", "the sink 'moody' cannot be made without a place: KeyError: 'mood'"),
        ("moody=x", "the sink 'moody' cannot be made at 'x': TypeError: "),
        ("console=x", "--log console=x: it writes to standard error and takes no place"),
    ],
)
def test_what_cannot_be_made_is_one_line_and_trains_nothing(
    treadle: Any, line: None, pack: None, text: str, said: str
) -> None:
    assert treadle("train", "line", "--log", text) == 2
    assert said in treadle.err and treadle.err.count("\n") == 1
    assert not Path("runs").exists()


def test_a_missing_package_is_one_line_that_names_the_extra(
    treadle: Any, line: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else real(name))
    assert treadle("train", "line", "--log", "tensorboard") == 2
    said = "treadle: --log tensorboard: TensorBoard is not installed: pip install 'treadle[tensorboard]'\n"
    assert treadle.err == said
    assert not Path("runs").exists()
