"""Make tables and a picture of the figures: ``python benchmarks/report.py FILE``.

``FILE`` is what ``run.py --json`` wrote. The tables go into ``benchmarks/README.md``, between
its markers, and with the picture into the docs.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import picture
from picture import number
from targets import TARGETS, Target

ROOT = Path(__file__).parent.parent
README = ROOT / "benchmarks" / "README.md"
DOCS = ROOT / "docs" / "explanation"

Table = list[list[str]]


def main() -> None:
    figures = json.loads(Path(sys.argv[1]).read_text())
    workloads = figures["workloads"]
    conditions = describe(figures["conditions"])
    shown = overview(workloads)
    reached = judgements(workloads)
    text = README.read_text()
    for name, part in {
        "conditions": conditions,
        "overview": markdown(shown),
        "targets": markdown(reached),
        "obstacles": obstacles(workloads),
        "details": details(workloads),
    }.items():
        text = between_markers(text, name, part)
    README.write_text(text)
    for name, part in {
        "conditions": conditions.replace("`", "``"),
        "overview": list_table(shown),
        "targets": list_table(reached),
        "obstacles": obstacles(workloads),
    }.items():
        (DOCS / f"performance-{name}.inc").write_text(f"{part}\n")
    (DOCS / "performance.svg").write_text(picture.draw(workloads))


def describe(conditions: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {release}" for name, release in conditions["packages"].items())
    return (
        f"{conditions['date']}; {conditions['processor']}, {conditions['cores']} cores, "
        f"{conditions['system']}; Python {conditions['python']}, {packages}. "
        f"Medians of {conditions['rounds']} rounds with `--scale {conditions['scale']:g}`. "
        f"Load average {conditions['load_before']:.1f} before and "
        f"{conditions['load_after']:.1f} after it; this program makes about 2."
    )


def everybody(workloads: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(peer for each in workloads.values() for peer in each["peers"]))


def overview(workloads: dict[str, Any]) -> Table:
    """Return a row for each workload, and a column for each peer."""
    peers = everybody(workloads)
    rows = [["", *peers]]
    for name, workload in workloads.items():
        cells = [
            number(workload["peers"][peer]["median"]) if peer in workload["peers"] else ""
            for peer in peers
        ]
        rows.append([f"{name}, {workload['unit']}", *cells])
    return rows


def judgements(workloads: dict[str, Any]) -> Table:
    """Return a row for each target: the ratio that was wanted, and what there is."""
    rows = [["workload", "against", "target", "measured", ""]]
    for target, ratio in measured(workloads):
        word = "reached" if ratio <= target.ratio else "not reached"
        figures = [f"{target.ratio:.2f}", f"{ratio:.2f}"]
        rows.append([target.workload, target.peer, *figures, word])
    return rows


def obstacles(workloads: dict[str, Any]) -> str:
    """Tell, as a list, what stands in the way."""
    short = {target.workload: target for target, x in measured(workloads) if x > target.ratio}
    return "\n".join(f"* **{name}**: {each.obstacle}." for name, each in short.items())


def measured(workloads: dict[str, Any]) -> Iterator[tuple[Target, float]]:
    for target in TARGETS:
        peers = workloads.get(target.workload, {"peers": {}})["peers"]
        if {"trio_ws", target.peer} <= set(peers):  # not in every run of --only some
            yield target, peers["trio_ws"]["median"] / peers[target.peer]["median"]


def details(workloads: dict[str, Any]) -> str:
    parts = []
    for name, workload in workloads.items():
        rows = [["", workload["unit"], "rounds", "times trio_ws", "per second", "p50", "p99"]]
        ours = workload["peers"]["trio_ws"]["median"]
        for peer, told in workload["peers"].items():
            trips = [f"{told[p] * 1e6:,.0f} µs" if told[p] else "" for p in ("p50", "p99")]
            rows.append(
                [
                    peer,
                    number(told["median"]),
                    f"{number(told['low'])} - {number(told['high'])}",
                    f"{told['median'] / ours:.2f}",
                    f"{told['rate']:,.0f}" if told["rate"] else "",
                    *trips,
                ]
            )
        parts.append(f"### {name}\n\n{markdown(rows)}")
    return "\n\n".join(parts)


def markdown(rows: Table) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def list_table(rows: Table) -> str:
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        cells = [f"     - {cell}".rstrip() for cell in row]
        lines += [f"   * {cells[0].lstrip()}".rstrip(), *cells[1:]]
    return "\n".join(lines)


def between_markers(text: str, name: str, part: str) -> str:
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    pattern = re.compile(f"{begin}.*?{end}", re.DOTALL)
    assert len(pattern.findall(text)) == 1, f"{README} has to have the markers of {name} once"
    return pattern.sub(lambda _: f"{begin}\n{part}\n{end}", text)


if __name__ == "__main__":
    main()
