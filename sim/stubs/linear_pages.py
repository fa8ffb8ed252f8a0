"""The pages of the stub of Linear: a list of issues, and one issue as a person reads it. Nothing sent is trusted.

Descriptions are Markdown: raw HTML in them is shown as text, scripts are no links, and images are only links.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

Json = dict[str, Any]

_PAGES = Environment(loader=PackageLoader("sim.stubs", "."), autoescape=True, undefined=StrictUndefined)
_MARKDOWN = MarkdownIt("commonmark", {"html": False, "linkify": False}).enable("table").disable("image")


def age(then: str, now: str) -> str:
    """How long ago, in the largest unit that fits: `3 min`."""
    seconds = max(0, int((datetime.fromisoformat(now) - datetime.fromisoformat(then)).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def issues_page(issues: list[Json], asked: int, now: str) -> str:
    """The issues, the newest first."""
    rows = [{**issue, "age": age(issue["createdAt"], now)} for issue in issues]
    return _PAGES.get_template("linear_issues.j2").render(issues=rows, asked=asked)


def issue_page(issue: Json) -> str:
    """One issue, its description rendered and as it was sent."""
    rendered = Markup(_MARKDOWN.render(issue["description"] or ""))
    return _PAGES.get_template("linear_issue.j2").render(issue=issue, rendered=rendered, safe_links=_safe)


def _safe(url: str) -> bool:
    return url.startswith(("http://", "https://"))
