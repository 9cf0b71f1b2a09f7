"""The policy: show, compare, apply and roll back."""

import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime

from cli import windows
from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.show import Answer
from cli.text import say
from trainyard.application.scheduling.policy_changes import differences
from trainyard.domain.errors import Refused
from trainyard.domain.policy import MB, Policy


def show(deployment: Deployment, arguments: Arguments) -> Answer:
    if arguments.at is not None and (arguments.version is not None or arguments.text):
        raise Refused("--at shows the limits of the policy in force: it goes with neither --version nor --text")
    if arguments.version is None and not arguments.text:
        now = datetime.now(UTC)
        at = now if arguments.at is None else windows.parse_time(arguments.at)
        return _policy_answer(deployment.policies.current(), at, now)
    book = deployment.policies
    policy_text = book.in_force() if arguments.version is None else book.version(arguments.version)
    return Answer(
        data={"version": policy_text.version, "text": policy_text.text}, verbatim=policy_text.text.splitlines()
    )


def diff(deployment: Deployment, arguments: Arguments) -> Answer:
    text = arguments.file.read_text(encoding="utf-8")
    deployment.policies.check(text)
    version = deployment.policies.in_force().version
    lines = _differences(deployment, text, str(arguments.file))
    return Answer(data={"from_version": version, "diff": lines}, verbatim=lines or ["no difference"])


def _differences(deployment: Deployment, text: str, name: str) -> list[str]:
    """Return how a text differs from the policy in force, as a unified diff; [] if it does not."""
    before = deployment.policies.in_force()
    return differences(before.text, text, f"version {before.version}, in force", name)


def history(deployment: Deployment, arguments: Arguments) -> Answer:
    versions = deployment.policies.history()
    return Answer(
        data=[{"version": v.version, "applied_at": v.applied_at, "by": v.by, "note": v.note} for v in versions],
        columns=("VERSION", "APPLIED", "BY", "NOTE"),
        rows=[
            (v.version, v.applied_at and v.applied_at.strftime("%Y-%m-%d %H:%M:%S"), v.by, v.note)
            for v in versions
        ],
        below="NOTE",
        lines=["the first one is in force; `trainyard policy show --version N` prints a version"],
    )


def rollback(deployment: Deployment, arguments: Arguments) -> Answer:
    text = deployment.policies.version(arguments.version).text
    return _put_in_force(
        deployment, arguments, text, f"version {arguments.version}", rolled_back=arguments.version
    )


def apply(deployment: Deployment, arguments: Arguments) -> Answer:
    text = arguments.file.read_text(encoding="utf-8")
    return _put_in_force(deployment, arguments, text, str(arguments.file))


def _put_in_force(
    deployment: Deployment, arguments: Arguments, text: str, name: str, *, rolled_back: int | None = None
) -> Answer:
    """Check a policy, show how it differs, ask, and put it in force."""
    policies, before = deployment.policies, deployment.policies.in_force().version
    checked = deployment.policy_changes.check(text, force=arguments.force)
    changes = _differences(deployment, text, name)
    if not changes:
        return replace(_policy_answer(policies.current()), lines=["no difference: it is in force already"])
    if arguments.dry_run:
        return replace(_policy_answer(checked), verbatim=changes, lines=["nothing was changed"])
    if not arguments.yes:
        _ask(changes)
    by, now = deployment.caller(), datetime.now(UTC)
    if rolled_back is None:
        applied = policies.apply(text, now, note=arguments.note, by=by, after=before)
    else:
        applied = policies.rollback(rolled_back, now, by=by, after=before)
    deployment.bell.ring()
    return _policy_answer(applied)


def _ask(changes: list[str]) -> None:
    """Show the changes, and ask whether to go on; raises Refused if not."""
    if not sys.stdin.isatty():
        raise Refused("nothing was applied: there is no terminal to ask on. See --dry-run, then add --yes")
    for line in changes:
        say(line)
    say("apply this? [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused("nothing was applied")


def _policy_answer(policy: Policy, at: datetime | None = None, now: datetime | None = None) -> Answer:
    """Return the limits of a policy at a time, by default now."""
    now = now or datetime.now(UTC)
    at = at or now
    policy = policy.at(at)
    return Answer(
        data=asdict(replace(policy, base=None)) | windows.as_data(policy),
        columns=(
            "TIER",
            "SLOTS",
            "BORROWS",
            "LENDS",
            "PER TENANT",
            "CEILING",
            "MAX RUNTIME",
            "MIN QUALITY",
            "LARGEST UPLOAD MB",
        ),
        rows=[
            (
                t.name,
                t.quota,
                t.borrowing_limit,
                t.lending_limit,
                t.running_max_per_tenant,
                t.slots_max if t.running_ceiling_per_tenant is None else t.running_ceiling_per_tenant,
                t.runtime_max,
                t.quality_min,
                policy.data_bytes_max(t, "") // MB,
            )
            for t in policy.tiers
        ],
        lines=[
            f"version {policy.version}; {policy.running_max} slots in all; quiet period {policy.quiet_period}, "
            f"maximum delay {policy.delay_max}",
            *([f"limits at {at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"] if at != now else []),
            *(f"tier {tier.name} is closed" for tier in policy.tiers if tier.closed),
            *(
                f"tier {tier.name}: first attempts train on spot capacity, and may take {tier.spot_wait} "
                "longer with waiting"
                for tier in policy.tiers
                if tier.spot
            ),
            *windows.lines_about(policy, at),
        ],
    )
