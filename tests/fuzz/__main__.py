"""Fuzz all targets, one after the other, each for an equal share of the time; end with one line of figures for each.

    make fuzz SECONDS=600
    python -m tests.fuzz --seconds 60 codec batch

What the fuzzer learns stays in ``.fuzz/TARGET`` for the next time; an input that breaks something is kept as
``.fuzz/TARGET-crash-...`` and can be run again: ``python -m tests.fuzz.child TARGET FILE``. Exit status 1 on findings.
Memory: the address space of a child is limited, each target's own bound is measured (targets.py), and a child that
grows once it is warm is a finding too. ``.fuzz/memory.csv`` has its resident memory of every ten seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.targets import TARGETS, seeds

ROOT = Path(__file__).parents[2]
WORK = ROOT / ".fuzz"
DATA_BYTES = 1 << 30
RSS_MB = 1024
START_S, SAMPLE_S = 5, 10
WARM = 0.2  # share of a child's time after which it is expected to grow no more
GROWTH_MB = 32  # but for what libFuzzer keeps of its corpus
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
        child = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, preexec_fn=limit_memory)
        status, memory = watched(child, name, seconds)
    said = log.read_text(errors="replace")
    executions = re.findall(r"stat::number_of_executed_units:\s*(\d+)", said) or ["0"]
    coverage = re.findall(r"cov: (\d+)", said) or ["0"]
    grown = memory[-1] - memory[int(WARM * len(memory))]
    outcome = "nothing found" if status == 0 else f"FOUND SOMETHING, see {log.relative_to(ROOT)}"
    if grown > GROWTH_MB:
        outcome += f"; MEMORY GREW by {grown:.0f} MB once it was warm"
    print(
        f"{name:10} {int(executions[-1]):>10,} executions, {coverage[-1]:>5} edges, memory {memory[0]:.0f} to "
        f"{memory[-1]:.0f} MB, at most {max(memory):.0f}: {outcome}",
        flush=True,
    )
    return status == 0 and grown <= GROWTH_MB


def watched(child: subprocess.Popen[bytes], name: str, seconds: int) -> tuple[int, list[float]]:
    """Wait for the child to end; return its exit status and its resident memory in MB, once it has started, of every
    ten seconds."""
    begun, memory = time.monotonic(), list[float]()
    with (WORK / "memory.csv").open("a") as table:
        while True:
            try:
                return child.wait(SAMPLE_S if memory else 1), memory or [0.0]
            except subprocess.TimeoutExpired:
                elapsed_s = time.monotonic() - begun
                if elapsed_s > seconds + 120:
                    child.kill()
                if elapsed_s < START_S and seconds > 2 * START_S:
                    continue
                pages = int(Path(f"/proc/{child.pid}/statm").read_text().split()[1])
                if not pages:  # it ended a moment ago
                    continue
                memory.append(pages * resource.getpagesize() / 1e6)
                table.write(f"{name},{elapsed_s:.0f},{memory[-1]:.1f}\n")
                table.flush()


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
    WORK.mkdir(exist_ok=True)
    (WORK / "memory.csv").write_text("target,s,rss_mb\n")
    clean = [fuzz(name, max(chosen.seconds // len(names), 1)) for name in names]
    return 0 if all(clean) else 1


if __name__ == "__main__":
    sys.exit(main())
