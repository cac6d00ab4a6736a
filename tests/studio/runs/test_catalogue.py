"""The table of runs: filter, sort, differences, details, pictures; and runs that are somebody else's, or half there."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.checkpoint.store import read_checkpoint
from treadle.errors import UsageError
from treadle.runs.fork import fork_run
from treadle.runs.run import VERSION, Run, versions
from treadle.studio import protocol
from treadle.studio.client import StudioClient
from treadle.studio.hook import Studio
from treadle.studio.runs.catalogue import Catalogue
from treadle.studio.runs.filtering import parse
from treadle.studio.runs.inside import read_inside
from treadle.studio.runs.listing import Listing
from treadle.testing import Line

PNG = b"\x89PNG\r\n\x1a\n and a picture"


def make(root: Path, name: str, psnr: float, *, trainer: str = "image", status: str | None = "finished") -> Path:
    run = Run(
        root / name if VERSION.fullmatch(Path(name).name) else root / name / f"v{len(versions(root / name)) + 1:03}"
    )
    run.write("environment.json", json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "python": "3.11"}))
    run.write_config({"trainer": trainer, "data": None, "config": {"seed": int(psnr), "model": {"width": 64}}})
    for step in (10, 20, 30):
        run.metrics.append("train", {"loss": 1 / step, "lr": 0.1}, step=step, epoch=step // 10)
    run.metrics.append("validation", {"psnr": psnr, "loss": 0.5}, step=30, epoch=3)
    run.journal.append({"event": "start", "step": 0, "epoch": 0, "time": 1.0})
    run.journal.append({"event": "note", "step": 20, "epoch": 2, "time": 2.0, "text": "<b>here</b>"})
    run.close()
    if status is not None:
        best = {"monitor": "psnr", "mode": "max", "value": psnr, "step": 30}
        run.write_summary({"status": status, "step": 30, "epoch": 3, "best": best, "seconds": psnr / 2})
    return run.path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    make(root, "image", 31.5)
    make(root, "image", 29.0, status="stopped")
    make(root, "demo", 40.0, trainer="nerf", status=None)
    return root


def names(root: Path, where: str = "", sort: str = "name", *, down: bool = False) -> list[str]:
    return [row.name for row in Catalogue(root).rows(where, sort, down=down)]


# The table ------------------------------------------------------------------------------------------------------------


def test_a_row_says_what_is_known_of_a_run(root: Path) -> None:
    rows = {row.name: row.plain() for row in Catalogue(root).rows()}
    row = rows["image/v001"]
    assert row["trainer"] == row["recipe"] == "image" and row["status"] == "finished"
    assert (row["step"], row["epoch"], row["seconds"], row["parent"]) == (30, 3, 15.75, None)
    assert row["best"] == {"monitor": "psnr", "value": 31.5, "step": 30}
    assert abs(row["started"] - time.time()) < 3600
    assert list(row["metrics"]) == ["validation/psnr", "validation/loss", "train/loss", "train/lr"]
    assert row["metrics"]["validation/psnr"] == 31.5 and row["metrics"]["train/loss"] == 1 / 30
    assert rows["demo/v001"]["status"] == "unfinished" and rows["demo/v001"]["seconds"] is None
    json.dumps(rows, allow_nan=False)


def test_the_recipe_is_what_was_typed(root: Path) -> None:
    for number, (command, recipe) in enumerate(
        [
            ("/x/python /x/bin/treadle train my/tiny.yaml --run runs/a", "tiny"),
            ("python -m treadle.cli train nerf-photos --seed 3", "nerf-photos"),
            ("python train.py train image", "image"),
            ("python 'unclosed treadle train", "image"),
        ],
        1,
    ):
        path = make(root, f"typed{number}", 1.0)
        environment = json.loads((path / "environment.json").read_text()) | {"command": command}
        (path / "environment.json").write_text(json.dumps(environment))
        assert Listing(root).rows()[f"typed{number}/v001"].recipe == recipe, command


def test_filters(root: Path) -> None:
    everything = ["demo/v001", "image/v001", "image/v002"]
    for where, found in {
        "": everything,
        "psnr > 30": ["demo/v001", "image/v001"],
        "validation/psnr>30 AND recipe=IMAGE": ["image/v001"],
        "psnr > 30 and trainer = image and name ~ demo": [],
        "name ~ demo or psnr < 30": ["demo/v001", "image/v002"],
        "not (name ~ demo or psnr < 30)": ["image/v001"],
        "not not status = finished": ["image/v001"],
        "seconds > 0": ["image/v001", "image/v002"],  # the other has none
        "not seconds > 0": ["demo/v001"],
        'status != "finished"': ["demo/v001", "image/v002"],
        "best >= 31.5": ["image/v001"],
        "started > 2020-01-01": everything,
        "started > 2999-01-01T10:00": [],
        '"validation/psnr" = 4e1': ["demo/v001"],
        "loss <= 0.5 and loss >= 0.5": everything,  # of the validation
        "train/loss = 0.5": [],
        "step ~ 3": everything,
        "psnr > 100 or name = image/v002 and step = 30": ["image/v002"],
    }.items():
        assert names(root, where) == found, where


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("psnr >", "character 7: expected a number or text, but it ends"),
        ("psnr", "character 5: expected one of = != < <= > >= ~, but it ends"),
        ("psnr > and", "character 8: expected a number or text, but 'and' stands there"),
        ("> 3", "character 1: expected a name, such as psnr, but '>' stands there"),
        ("psnr > 3 recipe = x", "character 10: expected 'and', 'or' or the end, but 'recipe' stands there"),
        ("(psnr > 3", r"character 10: expected a '\)', but it ends"),
        ("psnr > 3)", "character 9: expected 'and', 'or' or the end"),
        ('name = "x', "character 8: a quotation mark that is not closed is not understood"),
        ("psnr ! 3", "character 6: '!' is not understood"),
        ("psnr > 3 and psrn < 4", "character 14: no run has 'psrn'; did you mean 'psnr'"),
        ("(" * 60 + "psnr > 3" + ")" * 60, "character 51: more than 50 brackets"),
        ("not " * 400 + "psnr > 3", "more than 50"),
        ("__class__ = 3", "no run has '__class__'"),
        ("metrics = 3", "no run has 'metrics'"),
        ("psnr > 3 and", "character 13: expected a name"),
        ("psnr = 3 or ()", "expected a name, such as psnr, but '\\)'"),
    ],
)
def test_a_filter_that_cannot_be_read_is_refused_in_a_line_that_names_the_place(
    root: Path, where: str, why: str
) -> None:
    with pytest.raises(UsageError, match=why) as error:
        names(root, where)
    assert "\n" not in str(error.value)


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(['"', "(", ")", "and", "or", "not", "a", "=", "~", "3"])).map(" ".join)
)
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    with suppress(UsageError):
        parse(text).holds(lambda name: 3.0)


def test_sorting(root: Path) -> None:
    make(root, "image/v010", 1.0)
    assert names(root) == ["demo/v001", "image/v001", "image/v002", "image/v010"]
    assert names(root, sort="name", down=True)[0] == "image/v010"
    assert names(root, sort="psnr", down=True) == ["demo/v001", "image/v001", "image/v002", "image/v010"]
    assert names(root, sort="seconds") == ["image/v010", "image/v002", "image/v001", "demo/v001"]
    assert names(root, sort="seconds", down=True)[-1] == "demo/v001"  # what has none comes last
    assert names(root, sort="status")[0] == "image/v001"
    with pytest.raises(UsageError, match="sort: no run has 'psn'; did you mean 'psnr'"):
        names(root, sort="psn")
    empty = root / "none"
    empty.mkdir()
    assert names(empty, "whatever > 3", "anything") == []


def test_names_tell_runs_apart(tmp_path: Path) -> None:
    for place in ("a/image/v001", "b/image/v001", "b/other/v001"):
        make(tmp_path, place, 1.0)
    assert names(tmp_path) == ["a/image/v001", "b/image/v001", "other/v001"]
    assert names(tmp_path / "b" / "other" / "v001") == ["other/v001"]
    assert Catalogue(tmp_path).path("b/image/v001") == tmp_path / "b" / "image" / "v001"


def test_who_trains_a_run_is_known_by_its_lock(root: Path) -> None:
    path = root / "demo" / "v001"
    for holder, status in (
        ({"pid": os.getpid(), "host": os.uname().nodename}, "running"),
        ({"pid": os.getppid(), "host": os.uname().nodename}, "running elsewhere"),
        ({"pid": 2**22 + 1, "host": os.uname().nodename}, "unfinished"),
        ({"pid": os.getppid(), "host": "another"}, "unfinished"),
        ({"pid": "1", "host": 7}, "unfinished"),
    ):
        (path / ".lock").write_text(json.dumps(holder))
        assert Listing(root).rows()["demo/v001"].status == status
    (path / ".lock").write_text(json.dumps({"pid": os.getppid(), "host": os.uname().nodename}))
    time.sleep(0.01)
    (path / "summary.json").write_text('{"status": "failed"}')
    assert Listing(root).rows()["demo/v001"].status == "failed"  # it is over, though the process goes on


def test_the_newest_values_of_a_long_log_are_read_from_its_end(tmp_path: Path) -> None:
    path = make(tmp_path, "long", 20.0, status=None)
    with open(path / "metrics.jsonl", "a") as log:
        for step in range(40, 20_000, 10):
            log.write(
                json.dumps({"split": "train", "step": step, "epoch": 4, "time": 1, "values": {"loss": 1 / step}}) + "\n"
            )
        log.write('{"split": "train", "st')
    row = Listing(tmp_path).rows()["long/v001"]
    assert row.step == 19_990 and row.metrics["train/loss"] == 1 / 19_990
    assert row.metrics["validation/psnr"] == 20.0  # of the series beside the log


def test_what_has_changed_is_read_again_and_nothing_else(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = Listing(root)
    before = listing.rows()
    opened: list[str] = []
    real = os.open

    def opening(path: Any, *args: Any, **kwargs: Any) -> int:
        opened.append(str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", opening)
    assert listing.rows() == before and opened == []
    (root / "image" / "v001" / "summary.json").write_text('{"status": "failed", "step": 7}')
    assert listing.rows()["image/v001"].status == "failed"
    assert opened and all("v002" not in path and "demo" not in path for path in opened)


def test_a_sweep_is_no_run_but_its_trials_are(tmp_path: Path) -> None:
    trial = make(tmp_path, "rates/trial-001", 30.0)
    (tmp_path / "rates" / "sweep.yaml").write_text("")
    (tmp_path / "rates" / "config.yaml").write_text("trainer: image\n")  # that of the best
    for root in (tmp_path, tmp_path / "rates"):
        assert list(Listing(root).paths().values()) == [trial]


def test_a_thousand_runs_take_a_second_of_the_processor(tmp_path: Path) -> None:
    first = make(tmp_path, "sweep", 30.0)
    for number in range(2, 251):  # a quarter, for the tests to be quick
        shutil.copytree(first, tmp_path / "sweep" / f"v{number:03}")

    def took(listing: Listing) -> float:
        start = time.process_time()
        assert len(listing.rows()) == 250
        return time.process_time() - start

    listings = [Listing(tmp_path) for _ in range(3)]  # the least of three: others use the machine's caches, too
    once = min(took(listing) for listing in listings)
    again = min(took(listing) for listing in listings)
    assert once < 0.25 * 2 and again < once / 2  # twice what it should take, on a machine that is busy


# Forks ----------------------------------------------------------------------------------------------------------------


def test_a_fork_names_its_parent(line: Callable[..., Line], tmp_path: Path) -> None:
    with line(run_dir=tmp_path / "line" / "v001") as trainer:
        trainer.iterate()
        trainer.save()
    config: dict[str, Any] = {"trainer": "x:y", "data": None, "config": {}}
    fork = fork_run(tmp_path / "line" / "v001", 1, config)
    assert read_checkpoint(fork / "checkpoints" / "step-00000001").step == 1
    rows = Listing(tmp_path).rows()
    assert rows["line/v002"].parent == "line/v001" and rows["line/v002"].fork_step == 1
    assert rows["line/v001"].parent == ""
    shutil.rmtree(tmp_path / "line" / "v001")
    assert Listing(tmp_path).rows()["line/v002"].parent == str(tmp_path / "line" / "v001")


# What is hostile, or half there ---------------------------------------------------------------------------------------


def test_links_are_not_followed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    secret = make(outside, "secret", 99.0)
    (secret / "examples").mkdir()
    (secret / "examples" / "face.png").write_bytes(PNG)
    (root / "linked").symlink_to(secret)
    inside = make(root, "mine", 1.0)
    for name in ("summary.json", "metrics.jsonl", "journal.jsonl", "environment.json"):
        (inside / name).unlink()
        (inside / name).symlink_to(secret / name)
    (inside / "examples").symlink_to(secret / "examples")
    (inside / "report").mkdir()
    (inside / "report" / "face.png").symlink_to(secret / "examples" / "face.png")
    other = make(root, "logs", 1.0, status=None)
    shutil.rmtree(other / "logs")
    (other / "logs").symlink_to(secret / "logs")
    (other / "metrics.jsonl").unlink()
    catalogue = Catalogue(root)
    rows = {row.name: row for row in catalogue.rows()}
    assert rows["logs/v001"].metrics == {}
    assert read_inside(other, "config.yaml") and read_inside(other, "../v001/config.yaml") is None
    assert "linked" not in str(rows.keys()) and "secret" not in str(rows.keys())
    assert rows["mine/v001"].metrics == {"validation/loss": 0.5, "validation/psnr": 1.0}  # its own series
    found = ask(catalogue, protocol.Details(id=1, run="mine/v001"))
    assert found["pictures"] == [] and found["journal"] == [] and found["report"] == {} and found["environment"] == {}
    for name in ("examples/face.png", "report/face.png", "../../secret/v001/examples/face.png", "", "/etc/passwd"):
        with pytest.raises(UsageError, match="no picture"):
            ask(catalogue, protocol.PictureOf(id=1, run="mine/v001", picture=name))
    for name in ("../outside", str(secret), "linked", "image/v001/../v002", "", "mine/v001/"):
        with pytest.raises(UsageError, match="there is no run"):
            ask(catalogue, protocol.Details(id=1, run=name))


def ask(catalogue: Catalogue, request: protocol.Request) -> Any:
    return catalogue.handlers()[type(request)](request, None).result(60)  # type: ignore[arg-type]


def test_hostile_names_and_texts_pass_as_text(tmp_path: Path) -> None:
    name = b"<script>\xff\n".decode(errors="surrogateescape")
    path = make(tmp_path, name, 3.0)
    (path / "journal.jsonl").write_text('{"event": "\\ud800", "step": 1e999, "deep": %s}\n' % ("[" * 100 + "]" * 100))
    (path / "summary.json").write_text(
        '{"status": "\\udfff", "step": -5, "seconds": NaN, "best": [], "metrics": {"\\ud800": 1}}'
    )
    (path / "environment.json").write_text('{"time": 5, "command": 7, "huge": %s}' % ("9" * 400))
    (row,) = Catalogue(tmp_path).rows()
    assert row.name == "<script>\\udcff\n/v001" and row.status == "\\udfff" and row.step == 30
    catalogue = Catalogue(tmp_path)
    found = ask(catalogue, protocol.Details(id=1, run=row.name))
    json.dumps([row.plain(), found]).encode()
    assert found["journal"][0]["event"] == "\\ud800" and found["environment"]["huge"] == "9" * 400


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"\xff\xfe", b"null", b"trainer: [", b"{" * 100_000, b'{"values": 3}\n']
)
def test_damaged_files_leave_out_what_they_would_say(root: Path, content: bytes) -> None:
    for file in ("config.yaml", "summary.json", "environment.json", "journal.jsonl", "metrics.jsonl", ".lock"):
        (root / "demo" / "v001" / file).write_bytes(content)
    rows = {row.name: row for row in Catalogue(root).rows()}
    assert len(rows) == 3 and rows["demo/v001"].trainer == ""
    ask(Catalogue(root), protocol.Details(id=1, run="demo/v001"))


def test_a_run_that_goes_while_it_is_looked_at_is_left_out(root: Path) -> None:
    catalogue = Catalogue(root)
    assert len(catalogue.rows()) == 3
    path = catalogue.path("demo/v001")
    shutil.rmtree(path)
    assert (
        names(root)
        == [row.name for row in sorted(catalogue.rows(), key=lambda row: row.name)]
        == ["image/v001", "image/v002"]
    )
    with pytest.raises(UsageError, match="there is no run 'demo/v001'"):
        catalogue.path("demo/v001")
    (root / "demo" / "v002").mkdir()
    (root / "demo" / "v002" / "environment.json").write_text("{")  # it is being made
    assert "demo/v002" in names(root)
    (root / "demo" / ".treadle-new-1").mkdir()
    (root / "demo" / ".treadle-new-1" / "config.yaml").write_text("{}")
    assert len(names(root)) == 3


# Over the wire --------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(line: Callable[..., Line], root: Path) -> Iterator[tuple[StudioClient, Line]]:
    trainer = line(run_dir=root / "line" / "v001")
    with Studio(trainer, quiet=True, open_browser=False) as studio, StudioClient(studio.url) as client:
        yield client, trainer


def test_all_of_it_over_the_wire(client: tuple[StudioClient, Line], root: Path) -> None:
    studio, trainer = client
    trainer.iterate()
    trainer.log_image("fit", np.zeros((4, 4, 3), np.uint8))
    rows = studio.request(protocol.Runs(id=0, where="name ~ line"))
    assert [row["name"] for row in rows] == ["line/v001"] and rows[0]["status"] == "running" and rows[0]["step"] == 1
    trainer.commands.pause()
    trainer.iterate()
    assert studio.request(protocol.Runs(id=0, where="name ~ line"))[0]["status"] == "paused"
    differing = studio.request(protocol.Difference(id=0, runs=["image/v001", "image/v002", "demo/v001"]))
    assert {row["key"]: row["values"] for row in differing} == {
        "trainer": {"image/v001": "image", "image/v002": "image", "demo/v001": "nerf"},
        "config.seed": {"image/v001": 31, "image/v002": 29, "demo/v001": 40},
    }
    found = studio.request(protocol.Details(id=0, run="line/v001"))
    assert found["pictures"] == ["examples/step-00000001-fit.png"] and "trainer:" in found["config"]
    assert [entry["event"] for entry in found["journal"]][:1] == ["start"] and found["environment"]["python"]
    header, data = studio.request(protocol.PictureOf(id=0, run="line/v001", picture=found["pictures"][0]))
    assert header.format == "png" and bytes(data[:4]) == b"\x89PNG"
    (root / "line" / "v001" / "examples" / "page.png").write_text("<script>")
    with pytest.raises(UsageError, match="no PNG, JPEG or GIF"):
        studio.request(protocol.PictureOf(id=0, run="line/v001", picture="examples/page.png"))
    for refused, why in (
        (protocol.Runs(id=0, where="psnr >"), "character 7"),
        (protocol.Difference(id=0, runs=["image/v001", "none"]), "there is no run 'none'"),
        (protocol.Details(id=0, run="none"), "there is no run 'none'"),
    ):
        with pytest.raises(UsageError, match=why):
            studio.request(refused)


def test_details_have_notes_and_the_figures_of_tests(root: Path) -> None:
    path = root / "image" / "v001"
    (path / "test" / "pictures").mkdir(parents=True)
    for name in ("0002-b.png", "0001-a.png", "notes.txt"):
        (path / "test" / "pictures" / name).write_bytes(PNG)
    (path / "examples").mkdir()
    for step in (9, 10):
        (path / "examples" / f"step-{step}-x.png").write_bytes(PNG)
    (path / "test" / "table.json").write_text('{"metrics": {"ssim": {"mean": 0.9}}, "overall": {"fid": 12.5}}')
    found = ask(Catalogue(root), protocol.Details(id=1, run="image/v001"))
    assert found["notes"][0]["text"] == "<b>here</b>" and len(found["journal"]) == 2
    assert found["report"]["test: ssim, mean"] == 0.9 and found["report"]["test: fid"] == 12.5
    assert found["report"]["status"] == "finished" and found["report"]["best"]["value"] == 31.5
    assert found["pictures"] == [
        *("examples/step-10-x.png", "examples/step-9-x.png"),
        *("test/pictures/0001-a.png", "test/pictures/0002-b.png"),
    ]
