"""`python -m benchmarks.serving`: measures, prints the tables, and writes them to benchmarks/README.md."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from . import contest, environments, report
from .peers import EMPTY, LIMIT, MLAPP, PEERS
from .scenarios import SCENARIOS, read_samples

README = environments.ROOT / "benchmarks" / "README.md"
RESULTS = environments.ROOT / "benchmarks" / "results" / "serving.json"


def _parse_contest_arguments() -> argparse.Namespace:
    names = [peer.folder for peer in PEERS if peer.name not in (LIMIT, EMPTY, MLAPP)]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--peers", nargs="*", choices=names, default=names, help="beside mlapp and the empty ASGI app")
    parser.add_argument(
        "--scenarios", nargs="+", choices=[s.name for s in SCENARIOS], default=[s.name for s in SCENARIOS]
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="of each run of wrk (default 3)")
    parser.add_argument("--rounds", type=int, default=5, help="of all servers in turn (default 5)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the JSON file of all numbers")
    parser.add_argument("--no-write", action="store_true", help="print only: leave README.md and the JSON as they are")
    return parser.parse_args()


def main() -> int:
    arguments = _parse_contest_arguments()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that the servers end with us
    for program in ("wrk", "uv"):
        if shutil.which(program) is None:
            print(f"{program} is missing: `apt-get install wrk`, `pip install uv`.", file=sys.stderr)
            return 1
    models = environments.CACHE / "models"
    programs = environments.install_environment("mlapp")
    subprocess.run([programs / "python", environments.PEERS / "model" / "digits.py", models], check=True)
    peers = [peer for peer in PEERS if peer.name in (LIMIT, EMPTY, MLAPP) or peer.folder in arguments.peers]
    contests = [
        contest.run_contest(
            scenario,
            peers,
            models,
            read_samples(models / "samples.json"),
            rounds=arguments.rounds,
            seconds=arguments.seconds,
        )
        for scenario in SCENARIOS
        if scenario.name in arguments.scenarios
    ]
    text = report.render_report(contests, seconds=arguments.seconds, rounds=arguments.rounds)
    print(text)
    if not arguments.no_write:
        arguments.results.parent.mkdir(exist_ok=True)
        arguments.results.write_text(json.dumps([result.as_dict() for result in contests], indent=1) + "\n")
        report.write_report(text, README)
    return 0


if __name__ == "__main__":
    sys.exit(main())
