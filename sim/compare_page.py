"""A comparison as one self-contained HTML page: no script, no request, drawings as inline SVG; nothing is computed."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sim.compare import HIGHER, LOWER, Comparison, Row
from sim.inference import Curve
from sim.report_experiments import compared_notes, compared_table, sides_table

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1b1f24; }
table { border-collapse: collapse; margin: 1rem 0 2rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #d8dee4; text-align: left; vertical-align: top; }
tr.decisive td { font-weight: 600; }
.failed { color: #b3261e; font-weight: 600; }
.wide { overflow-x: auto; }
li { margin: .2rem 0; }
@media (prefers-color-scheme: dark) { body { background: #15181c; color: #e4e7ea; } th, td { border-color: #363c44; } }
"""

_COLOURS = ("#2f6f9f", "#c4622d", "#4d8b4d", "#8a5a9e", "#8c7a2d", "#b0436e")


def page(found: Comparison) -> str:
    """The page, as HTML."""
    title = "Comparison" if found.against is None else f"Compared with {found.against}"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
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
    return "\n".join([*parts, f"<h2>How to read this</h2><ul>{notes}</ul></body></html>", ""])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    body = []
    for row in rows:
        style = ' class="decisive"' if any(cell in (HIGHER, LOWER) for cell in row) else ""
        body.append(f"<tr{style}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>")
    heads = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def _forest(rows: Sequence[Row]) -> str:
    """Each difference as a point on its interval."""
    height, middle, half = 26, 560, 200
    parts = [
        f'<svg role="img" aria-label="differences with their intervals" width="800" '
        f'height="{height * len(rows) + 20}" font-size="13" fill="currentColor">',
        f'<line x1="{middle}" y1="0" x2="{middle}" y2="{height * len(rows) + 10}" stroke="#888"/>',
    ]
    for i, row in enumerate(rows):
        assert row.interval is not None and row.difference is not None, "it is drawn"
        scale = half / (max(abs(row.interval.low), abs(row.interval.high)) or 1)
        low, high, point = (middle + scale * x for x in (row.interval.low, row.interval.high, row.difference))
        y = height * i + 18
        colour = _COLOURS[0] if row.result in (HIGHER, LOWER) else "#888"
        parts.append(f'<text x="0" y="{y + 4}">{escape(row.metric)}: {escape(row.side)}</text>')
        parts.append(f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<circle cx="{point:.1f}" cy="{y}" r="5" fill="{colour}"/>')
    return "".join([*parts, "</svg>"])


def _survival(curves: Sequence[tuple[str, Curve]]) -> str:
    """The survival curves as steps."""
    last = max((curve.epochs[-1] for _, curve in curves if curve.epochs), default=1) * 1.1
    width, height = 560, 200
    parts = [
        f'<svg role="img" aria-label="survival curves" width="{width + 240}" height="{height + 40}" font-size="13" '
        f'fill="currentColor"><line x1="40" y1="{height + 10}" x2="{width + 40}" y2="{height + 10}" stroke="#888"/>'
        f'<line x1="40" y1="10" x2="40" y2="{height + 10}" stroke="#888"/><text x="0" y="18">100 %</text>'
        f'<text x="12" y="{height + 12}">0 %</text><text x="{width}" y="{height + 30}">epochs</text>'
    ]
    for i, (name, curve) in enumerate(curves):
        x, y, path = 40.0, 10.0, "M 40 10"
        for epoch, left in zip(curve.epochs, curve.shares, strict=True):
            x, y = 40 + width * epoch / last, 10 + height * (1 - left)
            path += f" H {x:.1f} V {y:.1f}"
            parts.append(f'<text x="{x - 4:.1f}" y="{height + 28}">{epoch}</text>')
        colour = _COLOURS[i % len(_COLOURS)]
        parts.append(f'<path d="{path} H {width + 40}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{width + 50}" y="{20 + 18 * i}" fill="{colour}">{escape(name)}</text>')
    return "".join([*parts, "</svg>"])
