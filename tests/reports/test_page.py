from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest

from treadle.reports.report import write_report
from treadle.reports.rows import Row

pytest.importorskip("PIL")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ODD = "<b>bold</b> \"x\" & 'y' #1 100%? 家.png"


class Page(HTMLParser):
    """What the tests look at: all tags in order, and the text of each row's heading."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.names, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-3:] == ["tbody", "tr", "th"]:
            self.names.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def picture(seed, size=(6, 9)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def row(number, name=None, size=(6, 9), **metrics):
    pictures = {"input": picture(number, size), "output": picture(number + 100, size)}
    return Row(name or f"house {number}", pictures, metrics)


@pytest.fixture
def page(tmp_path):
    def write(rows, **options):
        write_report(tmp_path, rows, title="houses", **options)
        return (tmp_path / "index.html").read_text()

    return write


def test_self_contained_and_well_formed(page):
    text = page([row(1, l1=0.1), row(2, l1=0.2)], description="AtoB")
    parsed = Page(text)
    assert parsed.open == []
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text.replace("<!doctype html>", ""))
    assert "houses</h1>" in text
    assert "AtoB · 2 pictures" in text
    assert {"lang": "en"} in parsed.all("html")
    assert not parsed.all("link")


def test_pictures_load_lazily_at_a_reserved_size_and_lead_to_the_files(page, tmp_path):
    parsed = Page(page([row(1, name=ODD, l1=0.1), row(2, size=(500, 1000), l1=0.2)]))
    images = parsed.all("img")
    assert len(images) == 4
    for image in images:
        assert image["loading"] == "lazy"
        assert (tmp_path / unquote(image["src"])).is_file()
        assert image["src"].isascii()
        assert " " not in image["src"]
        assert image["src"] in {link["href"] for link in parsed.all("a")}
    assert images[0]["alt"] == f"input of {ODD}"
    assert (images[0]["width"], images[0]["height"], images[0]["class"]) == ("162", "108", "pixels")
    assert (images[2]["width"], images[2]["height"], "class" in images[2]) == ("256", "128", False)


def test_names_are_escaped(page):
    text = page([row(1, name=ODD, l1=0.1)])
    assert ODD in Page(text).names
    assert "<b>" not in text
    assert not Page(text).all("b")


def test_summary_leads_to_the_best_and_the_worst(page):
    parsed = Page(page([row(1, l1=0.3), row(2, l1=0.1), row(3, l1=0.2)]))
    assert [link["href"] for link in parsed.all("a")][:2] == ["#p2", "#p1"]
    assert {"p1", "p2", "p3"} <= {attributes.get("id") for attributes in parsed.all("tr")}


def test_headings_are_buttons_that_tell_how_the_table_is_sorted(page):
    parsed = Page(page([row(1, l1=0.3, ssim=0.2)], sort_by="ssim"))
    assert [(button["type"], button["data-metric"]) for button in parsed.all("button")] == [
        ("button", "l1"),
        ("button", "ssim"),
    ]
    assert [heading["aria-sort"] for heading in parsed.all("th") if "aria-sort" in heading] == ["none", "descending"]


def test_figures_are_short_to_read_and_full_to_sort(page):
    text = page([row(1, a=1 / 3, b=18.0, c=math.inf, d=math.nan, e=12345.6)])
    cells = re.findall(r'<td class=figure data-label="(\w)"(?: data-value="([^"]*)")?>([^<]*)</td>', text)
    assert cells == [
        ("a", repr(1 / 3), "0.3333"),
        ("b", "18.0", "18.00"),
        ("c", "Infinity", "inf"),
        ("d", "", "-"),
        ("e", "12345.6", "1.235e+04"),
    ]


def test_what_leads_to_the_pictures_stands_above_them(page, tmp_path):
    strips = {"the <same> pictures over the steps": picture(0, (40, 300)), "and back": picture(1, (40, 200))}
    text = page([row(1, l1=0.1)], strips=strips)
    parsed = Page(text)
    assert "the &lt;same&gt; pictures" in text and "<same>" not in text
    assert text.index("<figcaption>") < text.index("<table")
    first, second, *others = parsed.all("img")
    assert (first["width"], first["height"], second["width"]) == ("300", "40", "200") and len(others) == 2
    assert all((tmp_path / unquote(image["src"])).is_file() for image in (first, second))


def test_figures_are_explained_where_there_are_words_for_them(page):
    words = {"l1": "means <this>", "swd": "patches"}
    figures = {"swd_ab": 0.25, "swd_ba": 0.5, "other": 1.0}
    text = page([row(1, l1=0.1, sharpness=2.0)], words=words, note="read & look", overall=lambda: figures)
    cells = re.findall("<td class=words>([^<]*)</td>", text)
    assert cells == ["patches", "", "", "means &lt;this&gt;", ""]
    assert "all pictures together" in text and ">0.2500</td>" in text
    assert "<p class=note>read &amp; look</p>" in text
    assert "near 1 is better" in text and Page(text).open == []
    plain = page([row(1, l1=0.1)])
    assert "class=words" not in plain and "class=note" not in plain and "all pictures together" not in plain


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_script_sorts_by_how_far_from_1_a_figure_is(page, tmp_path):
    """Node has no page: what the script asks of one is there as plain objects."""
    text = page([row(number, sharpness=value) for number, value in enumerate((3.0, 0.5, 1.1, 0.9), 1)])
    cells = dict(re.findall(r'<tr id=p(\d).*?data-value="([^"]*)"', text))
    (better,) = re.findall(r'data-better="([^"]*)"', text)
    rows = [{"id": f"p{number}", "cells": [{"dataset": {"value": value}}]} for number, value in cells.items()]
    stage = f"""
      const nothing = () => null, heading = {{cellIndex: 0, setAttribute: nothing, getAttribute: nothing}};
      heading.dataset = {{better: {json.dumps(better)}}};
      const button = {{dataset: {{metric: "sharpness"}}, parentElement: heading, addEventListener: nothing}};
      let order = [];
      const body = {{rows: {json.dumps(rows)}, append(...rows) {{ order = rows.map(row => row.id).join(" "); }}}};
      globalThis.document = {{querySelector: () => ({{tBodies: [body], querySelectorAll: () => [button]}})}};
      globalThis.window = {{addEventListener() {{}}}};
      globalThis.location = {{hash: "#sort=sharpness"}};
    """
    script = re.search("<script>(.*)</script>", text, re.DOTALL)[1].replace("body = table.tBodies[0]", "_ = 0")
    (tmp_path / "sorted.cjs").write_text(
        f'{stage}{script}\nconsole.log(order); sort("sharpness", true); console.log(order);'
    )
    done = subprocess.run(["node", tmp_path / "sorted.cjs"], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split("\n")[:2] == ["p3 p4 p2 p1", "p1 p2 p4 p3"]


@pytest.mark.skipif(BROWSER is None, reason="no browser is installed")
def test_in_a_browser_clicks_and_addresses_sort(page, tmp_path):
    rows = [row(1, l1=0.3, psnr=20.0), row(2, l1=0.1), row(3, l1=0.2, psnr=math.inf), row(4, l1=0.2, psnr=9.0)]
    text = page(rows)
    clicks = """<script>
      const log = [];
      const note = () => log.push([...body.rows].map(row => row.id[1]).join("") + location.hash);
      note();
      for (const place of [0, 1, 1, 0]) { buttons[place].click(); note(); }
      location.hash = "#sort=psnr"; follow(); note();
      location.hash = "#p1"; follow(); note();
      document.title = log.join(" ");
    </script></body>"""
    (tmp_path / "clicked.html").write_text(text.replace("</body>", clicks))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    address = (tmp_path / "clicked.html").as_uri()
    dump = subprocess.run([*command, "--dump-dom", address], capture_output=True, text=True, timeout=60, check=True)
    assert re.search("<title>(.*)</title>", dump.stdout)[1].split() == [
        "2341",
        "1342#sort=l1,worst",
        "3142#sort=psnr",
        "4132#sort=psnr,worst",
        "2341#sort=l1",
        "3142#sort=psnr",
        "3142#p1",
    ]
