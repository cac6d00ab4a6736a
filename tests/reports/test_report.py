from __future__ import annotations

import csv
import json
import math
import os
import re
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.errors import RunError, UsageError
from treadle.reports import report as module
from treadle.reports.report import write_report
from treadle.reports.rows import Row

Image = pytest.importorskip("PIL.Image")


def picture(seed, size=(6, 9), channels=3):
    return np.random.default_rng(seed).integers(0, 256, (*size, channels), dtype=np.uint8)


def row(number, **metrics):
    pictures = {name: picture(3 * number + place) for place, name in enumerate(("input", "output", "target"))}
    return Row(f"house {number}.jpg", pictures, metrics)


def rows():
    """b is 3 1 2 from best to worst, l1 is 2 3 1."""
    return [row(1, l1=0.3, ssim=0.6), row(2, l1=0.1, ssim=0.5), row(3, l1=0.2, ssim=0.9)]


def table(directory):
    def strict(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads((directory / "table.json").read_text(), parse_constant=strict)


def content(directory):
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_summary(tmp_path):
    results = write_report(tmp_path / "test", rows(), title="houses")
    assert results == {
        "l1": pytest.approx(0.2),
        "ssim": pytest.approx(2 / 3),
        "table": tmp_path / "test" / "table.json",
        "page": tmp_path / "test" / "index.html",
    }
    written = table(tmp_path / "test")
    assert written["title"] == "houses"
    assert written["pictures"] == 3
    assert written["metrics"]["l1"] == {
        "better": "lower",
        "mean": pytest.approx(0.2),
        "median": 0.2,
        "std": pytest.approx(math.sqrt(0.02 / 3)),
        "best": {"name": "house 2.jpg", "value": 0.1},
        "worst": {"name": "house 1.jpg", "value": 0.3},
        "missing": 0,
    }
    ssim = written["metrics"]["ssim"]
    assert (ssim["better"], ssim["best"]["name"], ssim["worst"]["name"]) == ("higher", "house 3.jpg", "house 2.jpg")


@pytest.mark.parametrize(
    ("sort_by", "numbers"), [(None, [2, 3, 1]), ("l1", [2, 3, 1]), ("ssim", [3, 1, 2])], ids=["first", "l1", "ssim"]
)
def test_sorted_best_first_in_every_table(tmp_path, sort_by, numbers):
    write_report(tmp_path, rows(), title="houses", sort_by=sort_by)
    names = [f"house {number}.jpg" for number in numbers]
    written = table(tmp_path)
    assert written["sorted_by"] == (sort_by or "l1")
    assert [line["name"] for line in written["rows"]] == names
    with (tmp_path / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["name"] for line in lines] == names
    assert [float(line["ssim"]) for line in lines] == [line["ssim"] for line in written["rows"]]
    page = (tmp_path / "index.html").read_text()
    assert sorted(numbers, key=lambda number: page.index(f"<tr id=p{number}>")) == numbers


def test_pictures_are_those_of_the_rows(tmp_path):
    given_rows = rows()
    write_report(tmp_path, given_rows, title="houses")
    lines = {line["name"]: line for line in table(tmp_path)["rows"]}
    for given_row in given_rows:
        for column, pixels in given_row.pictures.items():
            with Image.open(tmp_path / lines[given_row.name]["files"][column]) as image:
                np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_channels(tmp_path, channels, mode):
    write_report(tmp_path, [Row("a", {"output": picture(0, channels=channels)}, {"l1": 0.5})], title="t")
    with Image.open(tmp_path / "pictures" / "0001-a-output.png") as image:
        assert image.mode == mode


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write_report(tmp_path / name, rows(), title="houses", description="best", overall=lambda: {"fid": 12.5})
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert len(content(tmp_path / "one")) == 3 + 9


def test_rows_are_taken_one_at_a_time(tmp_path):
    arrays, most = [], 0

    def stream():
        nonlocal most
        for number in range(1, 40):
            made = row(number, l1=0.1)
            arrays.extend(weakref.ref(pixels) for pixels in made.pictures.values())
            yield made
            most = max(most, sum(array() is not None for array in arrays))

    write_report(tmp_path, stream(), title="houses")
    assert len(arrays) == 3 * 39
    assert most <= 6  # those of the row at hand, and of the one before


def test_overall_is_asked_after_the_last_row(tmp_path):
    seen = []

    def stream():
        for line in rows():
            seen.append(line.name)
            yield line

    results = write_report(tmp_path, stream(), title="houses", overall=lambda: {"fid": 10.0 * len(seen)})
    assert results["fid"] == 30
    assert table(tmp_path)["overall"] == {"fid": 30.0}
    assert re.search("<th scope=row>fid</th><td class=figure>30.00</td>", (tmp_path / "index.html").read_text())


def test_without_targets_and_with_other_metrics(tmp_path):
    pictures = {"input": picture(0), "output": picture(1), "cycled": picture(2)}
    lines = [Row("a", pictures, {"cycle_l1": 0.2}), Row("b", pictures, {"cycle_l1": 0.1})]
    results = write_report(tmp_path, lines, title="unpaired")
    assert results["cycle_l1"] == pytest.approx(0.15)
    assert [line["name"] for line in table(tmp_path)["rows"]] == ["b", "a"]
    assert (tmp_path / "table.csv").read_text().startswith("name,cycle_l1,input,output,cycled\n")


def test_without_metrics_the_order_stays(tmp_path):
    lines = [Row(name, {"output": picture(0)}, {}) for name in ("b", "a")]
    assert set(write_report(tmp_path, lines, title="bare")) == {"table", "page"}
    assert [line["name"] for line in table(tmp_path)["rows"]] == ["b", "a"]


def test_missing_and_infinite_figures(tmp_path):
    lines = [row(1, psnr=math.nan), row(2, psnr=20.0), row(3), row(4, psnr=math.inf), row(5, psnr=30.0)]
    results = write_report(tmp_path, lines, title="odd", higher={"psnr"})
    assert results["psnr"] == math.inf
    written = table(tmp_path)
    assert [line["name"] for line in written["rows"]] == [f"house {number}.jpg" for number in (4, 5, 2, 1, 3)]
    assert [line.get("psnr") for line in written["rows"]] == ["Infinity", 30.0, 20.0, "NaN", None]
    psnr = written["metrics"]["psnr"]
    assert (psnr["missing"], psnr["median"], psnr["std"]) == (2, 30.0, "NaN")
    write_report(tmp_path, [row(1, l1=math.nan), row(2), row(3, l1=0.5), row(4, l1=0.0)], title="lower")
    assert [line["name"] for line in table(tmp_path)["rows"]] == [f"house {number}.jpg" for number in (4, 3, 1, 2)]
    write_report(tmp_path, [row(1, psnr=math.nan)], title="none")
    assert table(tmp_path)["metrics"]["psnr"]["best"] is None


ODD = "../<script>alert(1)</script> \"x\" & 'y' #1 100%? ünï 家.png"


def test_names_of_all_kinds_stay_in_their_folder(tmp_path):
    names = [ODD, ODD, "", ".", "家" * 300, "a\nb", "C:\\x"]
    write_report(tmp_path / "test", [Row(name, {"output": picture(0)}, {"l1": 0.5}) for name in names], title=ODD)
    assert [path.name for path in tmp_path.iterdir()] == ["test"]
    assert len(list((tmp_path / "test" / "pictures").iterdir())) == len(names)
    assert [line["name"] for line in table(tmp_path / "test")["rows"]] == names


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.text(st.characters(codec="utf-8"), max_size=8), st.floats(width=16) | st.none()),
        min_size=1,
        max_size=6,
    )
)
def test_any_names_and_figures(tmp_path_factory, lines):
    directory = tmp_path_factory.mktemp("report")
    rows = [Row(name, {"output": picture(0)}, {} if value is None else {"l1": value}) for name, value in lines]
    write_report(directory, rows, title="any")
    written = table(directory)
    assert sorted(line["name"] for line in written["rows"]) == sorted(name for name, _ in lines)
    figures = [float(line["l1"]) for line in written["rows"] if "l1" in line]
    finite = [figure for figure in figures if not math.isnan(figure)]
    assert finite == sorted(finite)
    assert finite == figures[: len(finite)]
    for line in written["rows"]:
        assert (directory / line["files"]["output"]).is_file()


def test_a_new_report_replaces_the_old_one_and_nothing_else(tmp_path):
    write_report(tmp_path, rows(), title="old")
    (tmp_path / "metrics.json").write_text("{}")
    write_report(tmp_path, [row(7, l1=0.1)], title="new")
    assert table(tmp_path)["title"] == "new"
    assert len(list((tmp_path / "pictures").iterdir())) == 3
    assert (tmp_path / "metrics.json").read_text() == "{}"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"pictures", "index.html", "table.json", "table.csv", "metrics.json"}


def failing_after(count):
    yield from rows()[:count]
    raise KeyboardInterrupt


@pytest.mark.parametrize("count", [0, 2])
def test_stopped_on_the_way_the_old_report_is_whole(tmp_path, count):
    write_report(tmp_path, rows(), title="old")
    before = content(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        write_report(tmp_path, failing_after(count), title="new")
    assert content(tmp_path) == before


def test_killed_on_the_way_leaves_no_table_and_does_not_hinder_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "rmtree", lambda *args, **kwargs: None)  # nobody cleans up after a kill
    with pytest.raises(KeyboardInterrupt):
        write_report(tmp_path, failing_after(2), title="new")
    assert {path.name for path in tmp_path.iterdir()} == {".pictures.new"}
    monkeypatch.undo()
    write_report(tmp_path, rows(), title="new")
    assert {path.name for path in tmp_path.iterdir()} == {"pictures", "index.html", "table.json", "table.csv"}


def test_other_peoples_pictures_are_not_replaced(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "holiday.png").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"holiday.png is not a report's: move it away"):
        write_report(tmp_path, rows(), title="houses")
    assert [path.name for path in tmp_path.rglob("*")] == ["pictures", "holiday.png"]


def test_refusals(tmp_path):
    with pytest.raises(UsageError, match="houses: there is no picture to report on"):
        write_report(tmp_path, [], title="houses")
    with pytest.raises(UsageError, match="cannot be sorted by 'lpips': it has l1, ssim"):
        write_report(tmp_path, rows(), title="houses", sort_by="lpips")
    with pytest.raises(UsageError, match="'a: output' has shape"):
        write_report(tmp_path, [Row("a", {"output": np.zeros((2, 2, 7), np.uint8)}, {})], title="houses")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot write .*file.*; make room or mend its permissions"):
        write_report(tmp_path / "file" / "test", rows(), title="houses")


def test_what_reading_raises_stays_what_it_is(tmp_path):
    def unreadable():
        yield row(1, l1=0.1)
        raise PermissionError(13, "Permission denied", "data/2.jpg")

    with pytest.raises(PermissionError):
        write_report(tmp_path, unreadable(), title="houses")
    assert list(tmp_path.iterdir()) == []


def test_cells_that_a_spreadsheet_would_compute_are_texts(tmp_path):
    names = ["=1+1", "+7", "-1.jpg", "@SUM(A1)", "\t=1", "plain=1.jpg"]
    lines = [Row(name, {"=output": picture(0)}, {"-l1": -0.5}) for name in names]
    write_report(tmp_path, lines, title="odd")
    head, *cells = csv.reader((tmp_path / "table.csv").read_text().splitlines())
    assert head == ["name", "'-l1", "'=output"]
    assert sorted(cell[0] for cell in cells) == sorted(["'=1+1", "'+7", "'-1.jpg", "'@SUM(A1)", "'\t=1", "plain=1.jpg"])
    assert {cell[1] for cell in cells} == {"-0.5"}  # figures stay figures
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert {row["name"] for row in rows} == set(names)


def test_a_name_that_is_not_utf_8_does_not_lose_the_report(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    results = write_report(tmp_path, [Row(name, {"output": picture(0)}, {"l1": 0.5})], title=name, description=name)
    assert results["l1"] == 0.5
    table = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))
    assert table["title"] == table["rows"][0]["name"] == r"caf\udce9.jpg"
    assert (tmp_path / table["rows"][0]["files"]["output"]).is_file()
    assert r"caf\udce9.jpg" in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert r"caf\udce9.jpg" in (tmp_path / "table.csv").read_text(encoding="utf-8")


def test_of_a_metric_that_is_right_at_1_half_and_twice_are_equally_bad(tmp_path):
    values = [0.5, 1.1, 3.0, 0.0, 1.0, math.nan, 2.0, math.inf]
    lines = [Row(f"house {number}", {}, {"sharpness": value}) for number, value in enumerate(values, 1)]
    write_report(tmp_path, lines, title="houses")
    found = table(tmp_path)
    assert [int(line["name"].split()[1]) for line in found["rows"]] == [5, 2, 1, 7, 3, 4, 8, 6]
    assert found["metrics"]["sharpness"]["better"] == "near 1"
    assert found["metrics"]["sharpness"]["best"]["value"] == 1


def test_wide_pictures_are_kept_beside_the_others(tmp_path):
    wide = {"steps of A": np.zeros((20, 200, 3), np.uint8), "steps of B": np.ones((20, 100, 3), np.uint8)}
    for _ in range(2):
        write_report(tmp_path, rows(), title="houses", strips=wide)
        names = sorted(path.name for path in (tmp_path / "pictures").glob("0000-*"))
        assert names == ["0000-strip 1-steps of A.png", "0000-strip 2-steps of B.png"]
