"""Data that is not uploaded yet."""

import json
import subprocess
from pathlib import Path
from typing import Any

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.libraries import MISSING
from cli.show import Answer
from local.sagemaker.interpreter import interpreter
from trainyard.contracts.shipped_prices import prices_of
from trainyard.domain.arrivals import is_data
from trainyard.domain.errors import Refused
from trainyard.domain.estimates import estimate
from trainyard.domain.tenants import Tenant

CHECK = Path(__file__).parents[1] / "pipeline/steps/check.py"
MB = 1_000_000
SPLITS = {"random": "a random quarter", "group": "by {column}", "time": "the latest by {column}"}


def check(deployment: Deployment, arguments: Arguments) -> Answer:
    """Show how files would be read, and what a run on them would take, without a run."""
    files = [path for given in arguments.files for path in _files(given)]
    tenant = deployment.tenant(arguments.tenant) if arguments.tenant else None
    data_set = arguments.data_set or arguments.files[0].stem
    asked = {
        name: getattr(arguments, name) or _setting(tenant, data_set, name)
        for name in ("target", "problem", "split")
    }
    if not asked["target"]:
        raise Refused("say which column is to be predicted: --target COLUMN, or --tenant ID for its settings")
    report = _checked(files, asked)
    if "refused" in report:
        raise Refused(f"a run would fail: {report['refused']}")
    size = sum(path.stat().st_size for path in files)
    report |= {"bytes": size, "expected": _expected(deployment, tenant, data_set, size) if tenant else None}
    return Answer(
        data=report,
        columns=("COLUMN", "READ AS"),
        rows=[
            *(
                (column["name"], f"{column['kind']} ({column['how']})" if column["how"] else column["kind"])
                for column in report["columns"]
            ),
            *((name, f"left out: {why}") for name, why in report["left_out"].items()),
        ],
        lines=_lines(report),
    )


def _files(given: Path) -> list[Path]:
    if given.is_dir():
        return sorted(path for path in given.rglob("*") if path.is_file() and is_data(path.name, ""))
    if not given.is_file():
        raise Refused(f"{given} is not a file")
    return [given]


def _setting(tenant: Tenant | None, data_set: str, name: str) -> str:
    if tenant is None:
        return "" if name == "target" else "auto"
    return str(getattr(tenant.settings_for(data_set), name))


def _checked(files: list[Path], asked: dict[str, str]) -> dict[str, Any]:
    """Run the step's own code, with the libraries of SageMaker's image if they are installed."""
    options = [f"--{name}={value}" for name, value in asked.items()]
    command = [interpreter(), str(CHECK), *options, "--", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own script
    if "ModuleNotFoundError" in done.stderr:
        raise Refused(MISSING)
    if done.returncode:
        raise Refused(f"the check failed: {(done.stderr.strip() or 'it was killed').splitlines()[-1]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _expected(deployment: Deployment, tenant: Tenant, data_set: str, size: int) -> dict[str, Any]:
    """Return what a first run would take and cost; raises Refused when the tenant's tier does not take so much."""
    policy = deployment.policies.current()
    tier, algorithm = policy.tier(tenant.tier), tenant.settings_for(data_set).algorithm
    if tier is None:
        raise Refused(f"the policy in force has no tier {tenant.tier}")
    largest = policy.data_bytes_max(tier, algorithm)
    if size > largest:
        raise Refused(f"the files have {size:,} bytes in all; tier {tier.name} allows at most {largest:,}")
    profile = policy.profile_for(tier, algorithm, size)
    expected = estimate([], size, tier, profile, prices_of(deployment.region))
    usd = None if expected.usd is None else str(expected.usd)
    own_scripts = policy.algorithm(algorithm).code_uri is not None
    return {
        "own_scripts": own_scripts,
        "tier": tier.name,
        "profile": str(profile),
        "seconds": expected.seconds,
        "usd": usd,
    }


def _lines(report: dict[str, Any]) -> list[str]:
    split, dropped = report["split"], sum(report["dropped"].values())
    held_out = SPLITS[split["kind"]].format(column=split["column"])
    lines = [
        f"predicts {report['target']}: {report['problem']} (--problem says otherwise)",
        f"{report['rows']:,} rows used, {dropped:,} left out; {split['test']:,} tested on ({held_out})",
        *(f"note: {note}" for note in report["notes"]),
    ]
    expected = report["expected"]
    if expected:
        usd = f", {expected['usd']} USD" if expected["usd"] else ""
        lines.append(
            f"a first run would take about {expected['seconds'] / 60:.0f} minutes{usd} once it is admitted "
            f"(tier {expected['tier']})"
        )
        if expected["own_scripts"]:
            lines.append("note: the tenant's algorithm has scripts of its own, which may read the files otherwise")
    else:
        lines.append("with --tenant ID, also what a run would take and cost")
    return lines
