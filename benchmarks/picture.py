"""Bars as SVG: a panel for each workload, its own scale in each."""

from __future__ import annotations

from html import escape
from typing import Any

COLUMNS = 3
WIDTH, BAR, GAP = 300, 13, 5  # of a panel; of a bar; between bars
LABEL, ROOM = 124, 120  # for the peer's name; for the longest bar
TITLE = 30
PEERS = 8  # at most

STYLE = """
text { font: 11px system-ui, sans-serif; fill: #333 }
.title { font-weight: 600; font-size: 12px; fill: #111 }
.bar { fill: #b9c0c8 }
.ours { fill: #d2572b }
.page { fill: #fff }
"""


def draw(workloads: dict[str, Any]) -> str:
    """Return the picture."""
    height = TITLE + PEERS * (BAR + GAP) + GAP
    rows = -(-len(workloads) // COLUMNS)
    size = f"{COLUMNS * WIDTH} {rows * height}"
    panels = [
        panel(name, workload, n % COLUMNS * WIDTH, n // COLUMNS * height)
        for n, (name, workload) in enumerate(workloads.items())
    ]
    told = "CPU time per message, and memory per connection; shorter is better"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" role="img">',
            f"<title>{told}</title>",
            f"<style>{STYLE}</style>",
            '<rect class="page" width="100%" height="100%"/>',
            *panels,
            "</svg>\n",
        ]
    )


def panel(name: str, workload: dict[str, Any], x: int, y: int) -> str:
    longest = max(told["median"] for told in workload["peers"].values())
    title = escape(f"{name}, {workload['unit']}")
    lines = [
        f'<g transform="translate({x},{y})">',
        f'<text class="title" x="8" y="18">{title}</text>',
    ]
    for n, (peer, told) in enumerate(workload["peers"].items()):
        lines.append(bar(peer, told["median"], longest, TITLE + n * (BAR + GAP)))
    return "\n".join([*lines, "</g>"])


def bar(peer: str, value: float, longest: float, top: int) -> str:
    width = max(value / longest * ROOM, 1)
    kind = "bar ours" if peer == "trio_ws" else "bar"
    base = top + BAR - 3
    return (
        f'<text x="{LABEL - 6}" y="{base}" text-anchor="end">{escape(peer)}</text>'
        f'<rect class="{kind}" x="{LABEL}" y="{top}" width="{width:.1f}" height="{BAR}"/>'
        f'<text x="{LABEL + width + 4:.1f}" y="{base}">{number(value)}</text>'
    )


def number(value: float) -> str:
    """Return it with three digits, more or less."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
