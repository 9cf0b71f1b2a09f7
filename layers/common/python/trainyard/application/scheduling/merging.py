"""Merging: only one request per data set waits, and it trains on the newest upload."""

from dataclasses import replace
from datetime import datetime

from trainyard.domain.deadlines import earliest
from trainyard.domain.estimates import PastRun, estimate
from trainyard.domain.newest import merged, newest
from trainyard.domain.policy import Policy
from trainyard.domain.requests import Request, State, moved
from trainyard.domain.resources import ResourceProfile
from trainyard.domain.retraining import merged_triggers


def supersede(comer: Request, waiting: Request, policy: Policy, now: datetime) -> tuple[Request, Request]:
    """Return winner and loser of two requests of a data set: the arriving one and the waiting one.

    The winner trains on the newest of all uploads merged into either. It takes the earlier place in the queue, the
    earliest deadline that has not passed, and the greatest priority.
    """
    uploads = merged(waiting.uploads, comer.uploads)
    content, before = newest(uploads), newest(waiting.uploads)
    ours = newest(comer.uploads)
    comes = content.key == ours.key and (content == ours or before.key != content.key)
    winner, loser = (comer, waiting) if comes else (waiting, comer)
    size = content.size_bytes if content != winner.content or not winner.profile else winner.data_bytes
    tier = policy.tier(winner.tier)
    profile, winner = winner.profile, replace(winner, deadline=earliest(comer.deadline, waiting.deadline, now))
    if tier is not None and (size != winner.data_bytes or not profile):
        profile = str(
            policy.profile_for(
                tier,
                winner.algorithm,
                size,
                on_demand=winner.trains_on_demand,
                kind=winner.kind,
                trials=winner.trials,
            )
        )
    elif profile and winner.trains_on_demand:
        profile = str(ResourceProfile.parse(profile).on_demand())
    winner = replace(
        winner,
        content=content,
        uploads=uploads,
        arrived_at=min(comer.arrived_at, waiting.arrived_at),
        due_at=comer.due_at,
        triggers=merged_triggers(waiting.triggers, comer.triggers),
        collected=waiting.collected + comer.collected,
        collects=comer.collects,
        is_forced=comer.is_forced or waiting.is_forced,
        keeps_interval=comer.keeps_interval,
        data_bytes=size,
        profile=profile,
        supersedes=loser.request_id if comes else winner.supersedes,
        priority=max(comer.priority, waiting.priority),
    )
    loser = moved(loser, State.SUPERSEDED, now, f"by {winner.request_id}")
    return winner, replace(loser, superseded_by=winner.request_id)


def with_estimate(request: Request, past: tuple[PastRun, ...], policy: Policy) -> Request:
    """Return a request with what its run is expected to take and to cost, by the past runs of its data set."""
    tier = policy.tier(request.tier)
    if tier is None or not request.profile:
        return request
    profile = ResourceProfile.parse(request.profile)
    return replace(request, expected=estimate(past, request.data_bytes, tier, profile, policy.prices))
