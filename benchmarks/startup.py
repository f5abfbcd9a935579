"""How long the command line takes to answer, beside an empty Python, in one run.

Run: make bench. Machines are noisy: read the ratio, not the seconds.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = 15
CASES = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "labctl --help": [sys.executable, "-m", "provisioner.cli.main", "--help"],
    "labctl list": [sys.executable, "-m", "provisioner.cli.main", "list"],
}


def measure_s(command: list[str], environ: dict[str, str]) -> float:
    """Run a command once and return its wall time."""
    started_s = time.perf_counter()
    subprocess.run(command, env=environ, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started_s


def main() -> None:
    """Take the cases in turns, and print median and ratio to the first."""
    with tempfile.TemporaryDirectory() as state:
        environ = {**os.environ, "LABCTL_STATE": state}
        times: dict[str, list[float]] = {name: [] for name in CASES}
        for _ in range(ROUNDS):
            for name, command in CASES.items():
                times[name].append(measure_s(command, environ))
    base_s = statistics.median(times["python -c pass"])
    print(f"{'command':<18} {'median':>8} {'ratio':>6}")
    for name, taken in times.items():
        median_s = statistics.median(taken)
        print(f"{name:<18} {median_s:>6.3f} s {median_s / base_s:>6.1f}")


if __name__ == "__main__":
    main()
