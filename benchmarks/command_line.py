"""How long the command line takes, as a process: help, and reads on a local cloud with a few requests.

    python -m benchmarks.command_line

Prints milliseconds above bare Python, measured in turn with it, of the fastest of several runs; docs/cli.md has a
table of one such run.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from local.cloud import Cloud
from local.demo import data
from local.deploy import deploy

ROOT = Path(__file__).parents[1]
RUNS = 5
WITHOUT_DEPLOYMENT = ("--version", "--help", "tenant create --help", "mistyped", "prices show")
READS = (
    "status",
    "queue",
    "requests",
    "requests acme",
    "request {request}",
    "why {request}",
    "logs {request}",
    "models acme",
    "tenant list",
    "tenant show acme",
    "algorithm list",
    "policy show",
    "policy history",
    "costs",
    "costs --by day",
    "costs budgets",
    "dlq list",
    "doctor",
)


def fastest(command: list[str], environment: dict[str, str]) -> float:
    """Return the milliseconds of the fastest of several runs: what the others take more is not the command's."""
    times = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        subprocess.run(command, env=environment, capture_output=True, check=False)
        times.append(1000 * (time.perf_counter() - begin))
    return min(times)


def measured(commands: tuple[str, ...], environment: dict[str, str], **values: str) -> None:
    for text in commands:
        words = text.format(**values).split()
        took = fastest([sys.executable, "-m", "cli", *words], environment)
        bare = fastest([sys.executable, "-c", "pass"], environment)
        print(f"| `trainyard {text.format(request='REQUEST')}` | {took - bare:.0f} |", flush=True)


def main() -> int:
    paths = os.pathsep.join([str(ROOT / "layers/common/python"), str(ROOT)])
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": paths, "AWS_REGION": "us-east-1"}
    print("| command | ms above bare Python |\n|---|---|")
    measured(WITHOUT_DEPLOYMENT, environment)
    with Cloud() as cloud:
        environment |= cloud.environment() | {"TRAINYARD_STACK": "trainyard"}
        deploy(cloud, "trainyard", {"Stage": "dev"})
        (table := Path(tempfile.mkdtemp()) / "wine.csv").write_bytes(data.bundled("wine"))
        for words in (
            ["tenant", "create", "acme", "--tier", "premium", "--target", "target"],
            ["upload", "acme", str(table), "--wait"],
        ):
            subprocess.run(
                [sys.executable, "-m", "cli", *words], env=environment, check=False, capture_output=True
            )
        listed = subprocess.run(
            [sys.executable, "-m", "cli", "requests", "acme"], env=environment, check=False, capture_output=True
        )
        (request,) = (line.split()[0] for line in listed.stdout.decode().splitlines()[1:2])
        measured(READS, environment, request=request)
    return 0


if __name__ == "__main__":
    sys.exit(main())
