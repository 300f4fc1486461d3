"""Fuzz all targets, one after the other, each for an equal share of the time; end with one line of figures for each.

    make fuzz SECONDS=600
    python -m tests.fuzz --seconds 60 codec batch

What the fuzzer learns stays in ``.fuzz/TARGET`` for the next time; an input that breaks something is kept as
``.fuzz/TARGET-crash-...`` and can be run again: ``python -m tests.fuzz.child TARGET FILE``. Exit status 1 on findings.
Memory: the address space of a child is limited, and each target's own bound is measured (targets.py).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import re
import resource
import subprocess
import sys
from pathlib import Path

from tests.fuzz.targets import TARGETS, seeds

ROOT = Path(__file__).parents[2]
WORK = ROOT / ".fuzz"
DATA_BYTES = 1 << 30
RSS_MB = 1024
INPUT_TIMEOUT_S = 5
MAX_INPUT = 2048


def fuzz(name: str, seconds: int) -> bool:
    """Fuzz one target and print its line; tell whether nothing was found."""
    corpus = WORK / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in seeds(name):
        (corpus / hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
    command = [
        sys.executable, "-m", "tests.fuzz.child", name, f"-max_total_time={seconds}", f"-max_len={MAX_INPUT}",
        f"-rss_limit_mb={RSS_MB}", f"-timeout={INPUT_TIMEOUT_S}", "-print_final_stats=1",
        f"-artifact_prefix={WORK / name}-", str(corpus),
    ]  # fmt: skip
    log = WORK / f"{name}.log"
    with log.open("w") as output:
        status = subprocess.run(
            command, cwd=ROOT, stdout=output, stderr=output, timeout=seconds + 120, preexec_fn=limit_memory
        ).returncode
    said = log.read_text(errors="replace")
    executions = re.findall(r"stat::number_of_executed_units:\s*(\d+)", said) or ["0"]
    coverage = re.findall(r"cov: (\d+)", said) or ["0"]
    outcome = "nothing found" if status == 0 else f"FOUND SOMETHING, see {log.relative_to(ROOT)}"
    print(f"{name:10} {int(executions[-1]):>10,} executions, {coverage[-1]:>5} edges: {outcome}", flush=True)
    return status == 0


def limit_memory() -> None:
    """Let an allocation beyond all bounds fail at once."""
    resource.setrlimit(resource.RLIMIT_DATA, (DATA_BYTES, DATA_BYTES))


def main() -> int:
    """Fuzz what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="time for all targets together (default 600)")
    parser.add_argument("target", nargs="*", help=f"some of: {', '.join(TARGETS)} (default: all)")
    chosen = parser.parse_args()
    if unknown := set(chosen.target) - set(TARGETS):
        parser.error(f"no target {sorted(unknown)[0]!r}; there are {', '.join(TARGETS)}")
    if importlib.util.find_spec("atheris") is None:
        print(
            "fuzzing skipped: atheris is not installed (requirements-dev.lock; it has wheels for Python 3.11 to 3.13)"
        )
        return 0
    names = chosen.target or list(TARGETS)
    clean = [fuzz(name, max(chosen.seconds // len(names), 1)) for name in names]
    return 0 if all(clean) else 1


if __name__ == "__main__":
    sys.exit(main())
