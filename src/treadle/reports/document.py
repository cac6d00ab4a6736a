"""A page that is one file: its head, and the look that pages have in common, light and dark, wide and narrow."""

from __future__ import annotations

from html import escape


def document(title: str, description: str, body: str, *, style: str, script: str) -> str:
    """The page as HTML, with a heading and a line below it. Title and description are escaped, the rest is not."""
    return _DOCUMENT.format(
        title=escape(title), description=escape(description), style=_STYLE + style, body=body, script=script
    )


_STYLE = """
:root { color-scheme: light dark;
  --ink: #1d1d1f; --soft: #63636b; --line: #dcdce0; --paper: #fff; --bar: #f4f4f6; --mark: #0a5fd0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8ea; --soft: #a0a0a8; --line: #3a3a40; --paper: #161618; --bar: #212125; --mark: #7db4ff; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 80rem; color: var(--ink); background: var(--paper);
  font: 15px/1.45 system-ui, sans-serif; font-variant-numeric: tabular-nums; }
h1 { margin: 0; font-size: 1.5rem; overflow-wrap: anywhere; }
p, small { color: var(--soft); }
p { margin: .2rem 0 1.2rem; }
small { font-size: .8rem; font-weight: normal; }
a { color: var(--mark); text-decoration: none; }
a:hover { text-decoration: underline; }
a small { overflow-wrap: anywhere; }
table { border-collapse: collapse; }
th, td { padding: .35rem .7rem; text-align: left; vertical-align: top; }
.summary { margin-bottom: 1rem; }
.summary th:first-child { padding-left: 0; }
.summary tbody th { font-weight: normal; white-space: nowrap; }
.summary caption { color: var(--soft); text-align: left; padding: .35rem 0; }
.note { max-width: 50rem; color: var(--ink); }
figure { margin: 0 0 1.2rem; overflow-x: auto; }
figcaption { color: var(--soft); padding: .35rem 0; }
thead th { color: var(--soft); font-weight: normal; }
tr { border-bottom: 1px solid var(--line); }
.wide { overflow-x: auto; }
.figure { text-align: right; white-space: nowrap; }
button { width: 100%; padding: .5rem .7rem; border: 0; font: inherit; color: var(--mark); background: none;
  text-align: inherit; cursor: pointer; }
button:hover { text-decoration: underline; }
button:focus-visible, a:focus-visible { outline: 2px solid var(--mark); outline-offset: -2px; }
[aria-sort=ascending] button, [aria-sort=descending] button { color: var(--ink); font-weight: bold; }
[aria-sort] button::after { content: "\\2195"; padding-left: .35em; opacity: .5; }
[aria-sort=ascending] button::after { content: "\\2191"; opacity: 1; }
[aria-sort=descending] button::after { content: "\\2193"; opacity: 1; }
@media (max-width: 45rem) {
  body { padding: 1rem .75rem; }
  .summary { font-size: .85rem; }
  .summary th, .summary td { padding: .35rem .3rem; }
}
"""

_DOCUMENT = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<p>{description}</p>
{body}
<script>{script}</script>
</body>
</html>
"""
