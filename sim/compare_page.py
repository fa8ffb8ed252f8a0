"""A comparison as one self-contained HTML page: no script, no request, drawings as inline SVG; nothing is computed."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil

from gridgov import __version__
from sim.compare import HIGHER, LOWER, Comparison, Row
from sim.inference import Curve
from sim.report_experiments import TEXTS, compared_notes, compared_table, sides_table

_STYLE = """
:root { --ink: #1b1f24; --paper: #fff; --rule: #d8dee4; --soft: #6b7280; --bad: #b3261e;
  --c0: #1f6a9f; --c1: #b4531f; --c2: #3d7d3d; --c3: #7d4a94; --c4: #7a6a1c; --c5: #a83464; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --paper: #15181c; --rule: #363c44; --soft: #9aa3ad;
  --bad: #ff8a80; --c0: #6cb3e6; --c1: #f0995f; --c2: #86c786; --c3: #c79be0; --c4: #d6c25e; --c5: #f08cb4; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem;
  color: var(--ink); background: var(--paper); overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: 1rem 0 2rem; overflow-wrap: normal; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top;
  white-space: nowrap; }
th { vertical-align: bottom; }
.number { text-align: right; }
td.note { white-space: normal; min-width: 14rem; }
tr.decisive td { font-weight: 600; }
.failed { color: var(--bad); font-weight: 600; }
li { margin: .2rem 0; }
svg { display: block; font-size: 13px; fill: currentColor; }
svg .axis { stroke: var(--soft); }
.key { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; }
.key span { display: inline-block; width: 1.2rem; height: .2rem; margin-right: .4rem; vertical-align: middle; }
footer { color: var(--soft); }
"""

_COLOURS = 6
_LETTER = 7.4
"""The width of a letter in a drawing, about."""


def page(found: Comparison) -> str:
    """The page, as HTML."""
    title = f"Comparison of {found.by}" if found.against is None else f"{found.by}: compared with {found.against}"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1><p>{escape(found.about)}</p>",
    ]
    for name, (head, rows) in (("Sides", sides_table(found)), ("Metrics", compared_table(found))):
        parts += [f"<h2>{name}</h2>", _table(head, rows)]
    drawn = [row for row in found.rows if row.interval is not None and row.difference is not None]
    if drawn:
        parts += [
            "<h2>Differences</h2><p>The line is no difference; each row has a scale of its own.</p>",
            _forest(drawn),
        ]
    curves = [(side.name, side.curve) for side in found.sides if side.curve is not None]
    if curves:
        parts += ["<h2>Survival</h2>", _survival(curves)]
    if found.checked:
        gates = "".join(
            f'<li class="{"failed" if one.holds else "passed"}">{"FAILED" if one.holds else "passed"}: fail if '
            f"{escape(one.text)}: {escape(one.found)}</li>"
            for one in found.checked
        )
        parts += ["<h2>Gates</h2>", f"<ul>{gates}</ul>"]
    notes = "".join(f"<li>{escape(note)}</li>" for note in compared_notes(found))
    end = f"<footer>Made by gridgov {__version__} with `gridgov compare --html`.</footer></body></html>"
    return "\n".join([*parts, f"<h2>How to read this</h2><ul>{notes}</ul>", end, ""])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    styles = ["note" if name == "note" else "" if name in TEXTS else "number" for name in head]
    shown = [i for i, name in enumerate(head) if name != "note" or any(row[i] for row in rows)]
    body = []
    for row in rows:
        style = ' class="decisive"' if any(cell in (HIGHER, LOWER) for cell in row) else ""
        body.append(f"<tr{style}>" + "".join(_cell("td", row[i], styles[i]) for i in shown) + "</tr>")
    heads = "".join(_cell("th", head[i], styles[i]) for i in shown)
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def _cell(tag: str, text: str, style: str) -> str:
    return f"<{tag}{f' class={style}' if style else ''}>{escape(text)}</{tag}>"


def _drawing(what: str, width: float, height: float, parts: Sequence[str]) -> str:
    """A drawing that scrolls where it is wider than the screen."""
    return (
        f'<div class="wide"><svg role="img" aria-label="{what}" width="{width:.0f}" height="{height:.0f}">'
        f"{''.join(parts)}</svg></div>"
    )


def _forest(rows: Sequence[Row]) -> str:
    """Each difference as a point on its interval."""
    names = [f"{row.metric}: {row.side}" for row in rows]
    height, half = 26, 130
    middle = _LETTER * max(map(len, names)) + half + 20
    parts = [f'<line class="axis" x1="{middle}" y1="0" x2="{middle}" y2="{height * len(rows) + 10}"/>']
    for i, (row, name) in enumerate(zip(rows, names, strict=True)):
        assert row.interval is not None and row.difference is not None, "it is drawn"
        scale = half / (max(abs(row.interval.low), abs(row.interval.high)) or 1)
        low, high, point = (middle + scale * x for x in (row.interval.low, row.interval.high, row.difference))
        y = height * i + 18
        colour = "var(--c0)" if row.result in (HIGHER, LOWER) else "var(--soft)"
        parts.append(f'<text x="0" y="{y + 4}">{escape(name)}</text>')
        parts.append(f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<circle cx="{point:.1f}" cy="{y}" r="5" fill="{colour}"/>')
    return _drawing("differences with their intervals", middle + half + 10, height * len(rows) + 20, parts)


def _survival(curves: Sequence[tuple[str, Curve]]) -> str:
    """The survival curves as steps, from the first epoch to the longest that any run was watched."""
    until = max(curve.until for _, curve in curves)
    left, top, width, height = 48, 10, 480, 200
    parts = [
        f'<line class="axis" x1="{left}" y1="{top + height}" x2="{left + width}" y2="{top + height}"/>',
        f'<line class="axis" x1="{left}" y1="{top}" x2="{left}" y2="{top + height}"/>',
        f'<text x="{left + width / 2}" y="{top + height + 38}" text-anchor="middle">epoch</text>',
    ]
    for share in (0, 50, 100):
        y = top + height * (1 - share / 100)
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{share} %</text>')
    for epoch in range(0, until + 1, _step(until)):
        x = left + width * epoch / until
        parts.append(f'<line class="axis" x1="{x:.1f}" y1="{top + height}" x2="{x:.1f}" y2="{top + height + 4}"/>')
        parts.append(f'<text x="{x:.1f}" y="{top + height + 20}" text-anchor="middle">{epoch}</text>')
    keys = []
    for i, (name, curve) in enumerate(curves):
        path = f"M {left} {top}"
        for epoch, share_left in zip(curve.epochs, curve.shares, strict=True):
            path += f" H {left + width * epoch / until:.1f} V {top + height * (1 - share_left):.1f}"
        colour = f"var(--c{i % _COLOURS})"
        dashes = f' stroke-dasharray="{(0, 6, 2)[i // _COLOURS % 3]}"' if i >= _COLOURS else ""
        parts.append(f'<path d="{path} H {left + width}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>')
        keys.append(f'<li><span style="background: {colour}"></span>{escape(name)}</li>')
    chart = _drawing("survival curves", left + width + 12, top + height + 46, parts)
    return f'<p>The share of runs whose commons has not collapsed.</p><ul class="key">{"".join(keys)}</ul>{chart}'


def _step(until: int) -> int:
    """Epochs from one mark of an axis to the next, so that there are at most a dozen."""
    step = 1
    while ceil(until / step) > 12:
        step = int(step * (2.5 if str(step)[0] == "2" else 2))
    return step
