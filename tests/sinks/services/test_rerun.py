"""What Rerun is given, read back with Rerun's own reader and command line."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SERVICE = "treadle.sinks.services.rerun:RerunService"
ID = "0123456789abcdef"
HERE = Path(__file__).parent

Call = tuple[str, dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Where the run is."""
    return tmp_path / "line" / "v001"


@pytest.fixture
def opening(run: Path) -> Callable[..., Call]:
    """The call that opens a run."""

    def make(**more: Any) -> Call:
        told = {"run": "line/v001", "id": ID, "project": "line", "trainer": "line", "step": 0, "goes_on": False}
        return "open", {"opening": told | {"directory": str(run)} | more}

    return make


@pytest.fixture
def called(driven: Callable[..., Any], rerun_python: str) -> Callable[..., list[dict[str, Any]]]:
    """Call the service; what it has raised is a failure, where nothing else is said."""

    def call(*calls: Call, fails: bool = False, **more: Any) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = driven(rerun_python, SERVICE, list(calls), {}, **more)
        assert fails or not [answer for answer in answers if "raised" in answer], answers
        return answers

    return call


@pytest.fixture
def kept(rerun_python: str, run: Path) -> Callable[..., dict[str, Any]]:
    """Read files back; by default all of the run's, the oldest first."""

    def read(*files: Path) -> dict[str, Any]:
        files = files or tuple(sorted((run / "rerun").glob("*.rrd"), key=lambda path: path.stat().st_mtime))
        command = [rerun_python, HERE / "read_rerun.py", *files]
        found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        return found

    return read


@pytest.fixture
def cli(rerun_python: str, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Rerun's command line, in a home of its own."""

    def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
        command = [Path(rerun_python).with_name("rerun"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HOME": str(tmp_path / "cli")})

    (tmp_path / "cli").mkdir()
    return run


def scalars(step: int, split: str = "train", epoch: int = 0, **values: float) -> Call:
    """A call with numbers."""
    return "scalars", {"step": step, "epoch": epoch, "split": split, "values": values, "time": 1_700_000_000.5 + step}


def event(name: str, step: int, **more: Any) -> Call:
    """A call with an entry of the journal."""
    return "event", {"entry": {"event": name, "step": step, "epoch": 0, "time": 1_700_000_000.75 + step, **more}}


CLOSE: Call = ("close", {"status": "finished"})


def curve(found: dict[str, Any], path: str) -> dict[int, Any]:
    """The values of an entity by step; each step is there once."""
    entity = found["entities"].get(path, {"step": [], "values": []})
    assert len(set(entity["step"])) == len(entity["step"]) == len(entity["values"]), (path, entity["step"])
    return dict(zip(entity["step"], entity["values"], strict=True))


def test_everything_can_be_read_back(
    called: Callable[..., Any], opening: Callable[..., Any], kept: Callable[..., Any], run: Path, tmp_path: Path
) -> None:
    odd = {"loss": 0.5, "acc a/b": 1.0, "größe": 2.0, "hard/psnr": -0.0, "lr": 1e-3, "l1.weight": 1.0}
    config = {"seed": 7, "optimizer": {"lr": 0.1, "betas": [0.9, 0.99], "name": None}, "on": True}
    answers = called(
        opening(config=config, environment={"python": "3.11"}),
        event("start", 0, trainer="line"),
        scalars(2, **odd),
        scalars(4, loss=math.nan, lr=math.inf),
        scalars(4, "epoch", loss=0.25),
        scalars(4, "validation", loss=0.75),
        ("picture", {"step": 4, "name": "view", "picture": [[[1, 2, 3], [0, 0, 0]]]}),
        ("picture", {"step": 4, "name": "grey", "picture": [[[7]], [[0]]]}),
        ("picture", {"step": 4, "name": "clear", "picture": [[[1, 2, 3, 4]]]}),
        ("text", {"step": 4, "name": "a note", "text": "# hello\n<b>"}),
        event("observer failed", 4, error="x" * 3000),
        ("summary", {"values": {"status": "finished", "metrics": {"loss": 0.5}, "best": None}}),
        CLOSE,
        ("lost", {}),
    )
    file = run / "rerun" / "line_v001.rrd"
    assert answers[0]["returned"] == str(file) and answers[-1]["returned"] == {}
    found = kept()
    assert found["ids"] == [ID] and found["warned"] == []
    paths = {"loss": "/train/loss", "acc a/b": "/train/acc\\ a/b", "größe": "/train/größe", "lr": "/train/lr",
             "hard/psnr": "/train/hard/psnr", "l1.weight": "/train/l1.weight"}  # fmt: skip
    for name, path in paths.items():
        assert curve(found, path)[2] == odd[name]
    assert math.isnan(curve(found, "/train/loss")[4]) and curve(found, "/train/lr")[4] == math.inf
    assert curve(found, "/epoch/loss") == {4: 0.25} and curve(found, "/validation/loss") == {4: 0.75}
    assert found["entities"]["/train/loss"]["time"] == [1_700_000_002.5, 1_700_000_004.5]
    assert curve(found, "/pictures/view") == {4: ["RGB", 2, 1, [1, 2, 3]]}
    assert curve(found, "/pictures/grey") == {4: ["L", 1, 2, 7]}
    assert curve(found, "/pictures/clear") == {4: ["RGBA", 1, 1, [1, 2, 3, 4]]}
    assert curve(found, "/texts/a\\ note") == {4: "# hello\n<b>"}
    events = curve(found, "/events")
    assert events[0] == "start: trainer line" and len(events[4]) < 1100 and events[4].startswith("observer failed: ")
    assert found["entities"]["/events"]["last"]["TextLog:level"] == ["WARN"]
    assert found["entities"]["/events"]["time"] == pytest.approx([1_700_000_000.75, 1_700_000_004.75], abs=1e-6)
    static = found["static"]
    assert static["/__properties"]["RecordingInfo:name"] == ["line/v001"]
    assert static["/__properties/config"] == {"seed": [7], "optimizer.lr": [0.1], "optimizer.betas": ["[0.9, 0.99]"],
                                              "optimizer.name": ["None"], "on": [True]}  # fmt: skip
    assert static["/__properties/environment"] == {"python": ["3.11"]}
    assert static["/__properties/summary"]["metrics.loss"] == [0.5]
    assert '"betas": [' in static["/about/config"]["TextDocument:text"][0]
    assert '"status": "finished"' in static["/about/summary"]["TextDocument:text"][0]
    assert not list((tmp_path / "home").iterdir()), "the SDK leaves nothing at home"


def test_it_opens_with_curves_by_what_they_are_of_pictures_and_events(
    called: Callable[..., Any], opening: Callable[..., Any], kept: Callable[..., Any]
) -> None:
    called(
        opening(),
        scalars(2, psnr=1, loss=1, lr=1, **{"l1.weight": 1, "lr.decoder": 1}),
        scalars(2, "validation", psnr=1),
        ("picture", {"step": 2, "name": "view", "picture": [[[1]]]}),
        ("text", {"step": 2, "name": "note", "text": "x"}),
        ("scene", {"step": 2, "name": "cells", "scene": {"boxes": [[[0, 0, 0], [1, 1, 1]]]}}),
        ("summary", {"values": {"status": "finished"}}),
        CLOSE,
    )
    views = {(kind, name): contents for kind, name, contents in kept()["views"]}
    assert views.keys() == {
        ("TimeSeries", "loss"), ("TimeSeries", "psnr"), ("TimeSeries", "weights"), ("TimeSeries", "learning rates"),
        ("2D", "view"), ("3D", "cells"), ("TextLog", "events"), ("TextDocument", "config"),
        ("TextDocument", "environment"), ("TextDocument", "summary"), ("TextDocument", "note"),
    }  # fmt: skip
    assert views["TimeSeries", "psnr"] == ["/train/psnr", "/validation/psnr"]
    assert views["TimeSeries", "learning rates"] == ["/train/lr", "/train/lr.decoder"]


CAMERA = [[0.0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]]
SPLATS = {"points": [[1, 2, 3], [4, 5, 6]], "scales": [[1, 1, 2], [3, 3, 3]], "colors": [[1, 2, 3, 4], [5, 6, 7, 8]],
          "rotations": [[0, 0, 0, 1], [1, 0, 0, 0]]}  # fmt: skip


def scene(step: int, **parts: Any) -> Call:
    """A call with things in space."""
    return "scene", {"step": step, "name": "all", "scene": parts}


def test_what_is_in_space_is_there_at_its_step(
    called: Callable[..., Any], opening: Callable[..., Any], kept: Callable[..., Any]
) -> None:
    other = [[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    cameras = {"poses": [CAMERA, other], "intrinsics": [[50, 60, 20, 30, 40, 55]] * 2}
    moved = [CAMERA, [[-1.0, 0, 0, 0], [0, -1, 0, 0], *other[2:]]]
    lines = {"lines": [[0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 5, 0], [0, 6, 0]], "offsets": [0, 3, 5],
             "line_colors": [[9, 0, 0]] * 3 + [[0, 4, 0], [0, 8, 0]]}  # fmt: skip
    mesh = {"vertices": [[0, 0, 0], [1, 0, 0], [0, 1, 0]], "faces": [[0, 1, 2]], "vertex_colors": [[1, 2, 3]] * 3}
    boxes = {"boxes": [[[0, 0, 0], [2, 4, 6]]]}
    called(
        opening(),
        scene(1, **SPLATS, **cameras, **lines, **mesh, **boxes),
        scene(2, points=[[7, 8, 9]], radii=[0.5], **cameras),
        scene(3, **cameras | {"poses": moved}),
        scene(4),
        CLOSE,
    )
    entities = kept()["entities"]
    base = "/scenes/all/"
    at = {path.removeprefix(base): entity["step"] for path, entity in entities.items()}
    cleared = {"splats": [1, 2], "points": [2, 3], "lines": [1, 2], "mesh": [1, 2], "boxes": [1, 2],
               "cameras/0": [1, 4], "cameras/1": [1, 3, 4]}  # fmt: skip
    assert at == cleared
    assert entities[base + "splats"]["columns"] == [
        "Clear:is_recursive", *(f"GaussianSplats3D:{name}" for name in ("centers", "colors", "quaternions", "scales"))
    ]  # fmt: skip
    first = firsts(entities)
    splats = first[base + "splats"]
    assert splats["GaussianSplats3D:centers"] == [[1, 2, 3], [4, 5, 6]]
    assert splats["GaussianSplats3D:scales"] == [[1, 1, 2], [3, 3, 3]]
    assert splats["GaussianSplats3D:quaternions"] == [[0, 0, 0, 1], [1, 0, 0, 0]]
    assert splats["GaussianSplats3D:colors"] == [0x01020304, 0x05060708]
    assert first[base + "points"]["Points3D:radii"] == [0.5]
    segments = [[[0, 0, 0], [1, 0, 0]], [[1, 0, 0], [2, 0, 0]], [[0, 5, 0], [0, 6, 0]]]
    assert first[base + "lines"]["LineStrips3D:strips"] == segments
    assert first[base + "lines"]["LineStrips3D:colors"] == [0x090000FF, 0x090000FF, 0x000400FF]
    assert first[base + "mesh"]["Mesh3D:vertex_normals"] == [[0, 0, 1]] * 3
    assert first[base + "mesh"]["Mesh3D:triangle_indices"] == [[0, 1, 2]]
    assert first[base + "boxes"]["Boxes3D:half_sizes"] == [[1, 2, 3]]
    assert first[base + "boxes"]["Boxes3D:centers"] == [[1, 2, 3]]
    camera = first[base + "cameras/0"]
    assert camera["Transform3D:translation"] == [[5, 6, 7]]
    assert camera["Transform3D:mat3x3"] == [[0, 1, 0, -1, 0, 0, 0, 0, 1]], "column by column"
    assert camera["Pinhole:image_from_camera"] == [[50, 0, 0, 0, 60, 0, 20, 30, 1]]
    assert camera["Pinhole:resolution"] == [[40, 55]]


def firsts(entities: dict[str, Any]) -> dict[str, Any]:
    """The first rows."""
    return {path: entity["first"] for path, entity in entities.items()}


def test_what_is_not_finite_is_left_out_and_counted(
    called: Callable[..., Any], opening: Callable[..., Any], kept: Callable[..., Any]
) -> None:
    nan, inf = math.nan, math.inf
    bad_camera = [[nan, 0, 0, 0], *CAMERA[1:]]
    answers = called(
        opening(),
        scene(1, points=[[nan, 0, 0], [1, 1, 1], [2, 2, 2]], scales=[[1, 1, 1], [1, inf, 1], [2, 2, 2]],
              rotations=[[0, 0, 0, 1]] * 3, colors=[[1, 1, 1], [2, 2, 2], [3, 3, 3]],
              lines=[[0, 0, 0], [nan, 0, 0], [1, 1, 1], [2, 2, 2]], offsets=[0, 2, 4], line_colors=[[1, 1, 1]] * 4,
              vertices=[[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, inf]], faces=[[0, 1, 2], [1, 2, 3]],
              boxes=[[[0, 0, 0], [1, 1, nan]], [[0, 0, 0], [1, 1, 1]]],
              poses=[CAMERA, bad_camera], intrinsics=[[50, 60, 20, 30, 40, 55]] * 2),
        scene(2, points=[[nan, nan, nan]]),
        CLOSE,
        ("lost", {}),
    )  # fmt: skip
    assert answers[-1]["returned"] == {
        "points that are not finite": 3, "lines that are not finite": 1, "faces that are not finite": 1,
        "boxes that are not finite": 1, "cameras that are not finite": 1,
    }  # fmt: skip
    found = firsts(kept()["entities"])
    assert found["/scenes/all/splats"]["GaussianSplats3D:centers"] == [[2, 2, 2]]
    assert found["/scenes/all/splats"]["GaussianSplats3D:colors"] == [0x030303FF]
    assert found["/scenes/all/lines"]["LineStrips3D:strips"] == [[[1, 1, 1], [2, 2, 2]]]
    assert found["/scenes/all/mesh"]["Mesh3D:triangle_indices"] == [[0, 1, 2]]
    assert found["/scenes/all/boxes"]["Boxes3D:half_sizes"] == [[0.5, 0.5, 0.5]]
    assert "/scenes/all/cameras/1" not in found


def test_sessions_are_files_of_one_recording_and_what_is_told_again_is_there_once(
    called: Callable[..., Any], opening: Callable[..., Any], kept: Callable[..., Any], cli: Callable[..., Any],
    run: Path, tmp_path: Path,
) -> None:  # fmt: skip
    picture = ("picture", {"step": 4, "name": "view", "picture": [[[1]]]})
    again = [scalars(4, loss=4), event("checkpoint", 4), picture]
    called(opening(), scalars(2, loss=2), *again)  # it is gone without a word
    (answer, *_) = called(opening(goes_on=True, step=4), *again, scalars(6, loss=6), event("stop", 6), CLOSE)
    assert answer["returned"].endswith("line_v001-2.rrd")
    files = sorted((run / "rerun").iterdir())
    assert [file.name for file in files] == ["line_v001-2.rrd", "line_v001.rrd"]
    found = kept()
    assert found["ids"] == [ID, ID] and found["warned"] == [], "the file of the session that was killed is mended"
    merged = tmp_path / "merged.rrd"
    done = cli("rrd", "merge", *files, "-o", merged)
    assert done.returncode == 0 and "WARN" not in done.stderr
    assert cli("rrd", "verify", merged, *files).returncode == 0
    for told in (found, kept(merged)):
        assert curve(told, "/train/loss") == {2: 2, 4: 4, 6: 6}
        assert curve(told, "/events") == {4: "checkpoint", 6: "stop"} and curve(told, "/pictures/view").keys() == {4}
    assert ["TimeSeries", "loss", ["/train/loss"]] in found["views"]


def test_a_rewind_takes_what_came_after_out_of_all_files(
    called: Callable[..., Any], opening: Callable[..., Any], kept: Callable[..., Any]
) -> None:
    called(opening(), *(scalars(step, loss=step) for step in (2, 4, 6)), event("start", 6), scene(6, **SPLATS), CLOSE)
    called(
        opening(goes_on=True, step=6),
        scalars(8, loss=8, lr=1),
        scene(8, **SPLATS),
        ("cut", {"step": 4}),
        scalars(6, loss=60),
        scene(6, points=[[0, 0, 0]]),
        ("cut", {"step": 5}),
        scalars(6, loss=600),
        CLOSE,
    )
    found = kept()
    assert curve(found, "/train/loss") == {2: 2, 4: 4, 6: 600} and curve(found, "/events") == {6: "start"}
    assert [path for path in found["entities"] if path.startswith("/scenes")] == [] and "/train/lr" not in found[
        "entities"
    ]
    assert found["warned"] == [] and found["static"]["/__properties"]["RecordingInfo:name"] == ["line/v001"]


def test_a_fork_names_its_parent(
    called: Callable[..., Any], opening: Callable[..., Any], kept: Callable[..., Any]
) -> None:
    called(opening(run="line/v002", parent={"run": "line/v001", "id": "f" * 16, "step": 4}), scalars(6, loss=1), CLOSE)
    static = kept()["static"]
    assert static["/__properties"]["RecordingInfo:name"] == ["line/v002, from line/v001 at step 4"]
    assert static["/__properties/parent"] == {"run": ["line/v001"], "id": ["f" * 16], "step": ["4"]}


def test_places_are_files_and_directories_and_nobodys_file_is_overwritten(
    called: Callable[..., Any], opening: Callable[..., Any], kept: Callable[..., Any], tmp_path: Path
) -> None:
    where = {"where": str(tmp_path / "out" / "mine.rrd")}
    for id, name in (("1" * 16, "mine.rrd"), ("2" * 16, "mine-2.rrd")):
        (answer, *_) = called(opening(id=id, options=where, directory=None), scalars(2, loss=int(id[0])), CLOSE)
        assert answer["returned"] == str(tmp_path / "out" / name)
        assert curve(kept(tmp_path / "out" / name), "/train/loss") == {2: int(id[0])}
    called(opening(id="1" * 16, options=where, goes_on=True), ("cut", {"step": 0}), scalars(2, loss=5), CLOSE)
    assert curve(kept(tmp_path / "out" / "mine-2.rrd"), "/train/loss") == {2: 2}, "another run's"
    assert curve(kept(tmp_path / "out" / "mine-3.rrd"), "/train/loss") == {2: 5}
    (answer, *_) = called(opening(options={"where": str(tmp_path / "all")}, directory=None), CLOSE)
    assert answer["returned"] == str(tmp_path / "all" / "line_v001.rrd")


def test_many_numbers_are_kept_as_columns_while_the_run_goes_on(
    rerun_python: str, kept: Callable[..., Any], opening: Callable[..., Any], run: Path
) -> None:
    """What a number takes by itself is 80 times as much; with a limit of 100 kB the file is written anew twice."""
    told = opening()[1]["opening"]
    program = f"""
import os
from pathlib import Path
from treadle.sinks.services import rerun, rerun_files
from treadle.sinks.services.service import Opening
rerun_files.SLACK = 100_000
service = rerun.RerunService()
path = service.open(Opening(**{told!r} | {{"directory": Path({str(run)!r})}}))
sizes = []
for step in range(60):
    service.scalars(step, 0, "train", {{"loss": step / 2, "lr": 1.0}}, 1e9 + step)
    sizes.append(os.path.getsize(path))
print(sum(b < a for a, b in zip(sizes, sizes[1:])), max(sizes))
os._exit(0)
"""
    source = str(HERE.parents[2] / "src")
    environment = os.environ | {"PYTHONPATH": source}
    done = subprocess.run([rerun_python, "-c", program], capture_output=True, text=True, env=environment)
    rewrites, largest = map(int, done.stdout.split())
    assert rewrites == 2 and largest < 300_000
    found = kept()
    assert curve(found, "/train/loss") == {step: step / 2 for step in range(60)}
    assert curve(found, "/train/lr") == dict.fromkeys(range(60), 1.0)
    assert found["entities"]["/train/loss"]["time"] == [1e9 + step for step in range(60)]


def test_a_full_disk_is_said_and_what_was_written_stays(
    called: Callable[..., Any], opening: Callable[..., Any], kept: Callable[..., Any], run: Path
) -> None:
    calls = [scalars(step, loss=step) for step in range(1, 101)]
    answers = called(opening(), *calls, CLOSE, fails=True, file_bytes=150_000)
    failed = [number for number, answer in enumerate(answers[1:-1], start=1) if "raised" in answer]
    assert failed == list(range(failed[0], 101)) and 10 < failed[0] < 100
    # In the SDK's words, or after some seconds in ours; where a disk is full, and not a file, it is in the system's.
    words = ("File-writer thread shut down prematurely", "nothing was taken in 5 s")
    said = {answers[number]["raised"] for number in failed}
    file = run / "rerun" / "line_v001.rrd"
    assert len(said) == 1 and said <= {f"OSError: {file} cannot be written: {why}" for why in words}
    assert curve(kept(), "/train/loss") == {step: step for step in range(1, failed[0])}
    called(opening(goes_on=True), *calls[failed[0] - 1 :], CLOSE)
    assert curve(kept(), "/train/loss") == {step: step for step in range(1, 101)}


def test_a_torn_end_is_taken_off(
    called: Callable[..., Any], opening: Callable[..., Any], kept: Callable[..., Any], run: Path
) -> None:
    called(opening(), scalars(2, loss=2), scalars(4, loss=4))
    file = run / "rerun" / "line_v001.rrd"
    os.truncate(file, file.stat().st_size - 700)
    called(opening(goes_on=True), scalars(2, loss=2), scalars(4, loss=4), CLOSE)
    found = kept()
    assert curve(found, "/train/loss") == {2: 2, 4: 4} and found["warned"] == []


def test_a_place_where_nothing_can_be_written_is_said(called: Callable[..., Any], opening: Callable[..., Any]) -> None:
    (answer,) = called(opening(options={"where": "/proc/nowhere/a.rrd"}), fails=True)
    assert answer["raised"].startswith("FileNotFoundError: [Errno 2] No such file or directory: '/proc/nowhere")
    (answer,) = called(opening(directory=None), fails=True)
    assert answer["raised"].startswith("ValueError: a run that is not on disk needs a place")


def port() -> int:
    """A port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        found: int = server.getsockname()[1]
        return found


def test_a_viewer_that_is_not_there_is_said(called: Callable[..., Any], opening: Callable[..., Any]) -> None:
    url = f"rerun+http://127.0.0.1:{port()}/proxy"
    (answer,) = called(opening(options={"where": url}), fails=True)
    assert answer["raised"] == f"OSError: no viewer listens at {url} (Connection refused)"


def test_a_viewer_gets_everything_and_another_recording_after_a_rewind(
    called: Callable[..., Any], opening: Callable[..., Any], kept: Callable[..., Any], rerun_python: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    number, saved = port(), tmp_path / "saved.rrd"
    (tmp_path / "cli").mkdir()
    command = [Path(rerun_python).with_name("rerun"), "--save", saved, "--port", str(number), "--bind", "127.0.0.1"]
    viewer = subprocess.Popen(
        command,
        env=os.environ | {"HOME": str(tmp_path / "cli")},
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # it is ignored where a shell's job began it
    )
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", number)) == 0:
                    break
            time.sleep(0.05)
        url = f"rerun+http://127.0.0.1:{number}/proxy"
        calls = [scalars(2, loss=2), scalars(4, loss=4), ("cut", {"step": 3}), scalars(4, loss=40), CLOSE]
        (answer, *_) = called(opening(options={"where": url}), *calls)
        assert answer["returned"] == url
    finally:
        viewer.send_signal(signal.SIGINT)
        viewer.wait(60)
    found = kept(saved)
    assert sorted(found["ids"]) == [ID, f"{ID}-3"]
    assert sorted(zip(*(found["entities"]["/train/loss"][name] for name in ("step", "values")), strict=True)) == [
        (2, 2), (4, 4), (4, 40)
    ]  # fmt: skip
