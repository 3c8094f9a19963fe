"""Fuzzes one target, guided by what it covers: ``run.py TARGET SECONDS FOLDER``.

Without arguments it prints the targets. The folder keeps what has been found worth
keeping, for the next run, and any input that fails. Such an input belongs into
``test_targets.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent.parent))  # as pytest does: see pyproject.toml

with atheris.instrument_imports(include=["trio_ws", "h11", "wsproto"]):
    from fuzz._targets import TARGETS, seeds


def main() -> None:
    """Fuzz."""
    if len(sys.argv) == 1:
        print(*TARGETS)  # noqa: T201  # a program's output
        return
    name, seconds, folder = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])
    corpus = folder / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={seconds:.0f}",
            "-max_len=2000",
            "-timeout=10",  # seconds for one input: none takes a tenth of that
            "-rss_limit_mb=2048",
            f"-artifact_prefix={folder}/failed-{name}-",
            "-print_final_stats=1",
            "-verbosity=1",
            str(corpus),
        ],
        TARGETS[name],
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
