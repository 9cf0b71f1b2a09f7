"""What handlers ask of results: whether a pass is stuck, an arrival was sent, a failed execution succeeded."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.build import NOW, policy, request
from tests.unit.test_use_cases import Harness
from trainyard.application.scheduling.completion import End
from trainyard.application.scheduling.dispatch import PassReport
from trainyard.application.scheduling.intake import Judgement, Verdict, check_sent
from trainyard.application.scheduling.reconcile import LISTED_AGAIN, LISTED_FOR
from trainyard.application.scheduling.record import Recorded, StatusEvent, StatusResult
from trainyard.application.scheduling.starts import Start, Started
from trainyard.domain.errors import Throttled
from trainyard.domain.names import display_name
from trainyard.domain.queues import TenantQueue, entry_of
from trainyard.domain.requests import State
from trainyard.domain.scheduling import Decision, Ledger, Plan, Reason, Snapshot
from trainyard.domain.scheduling import Verdict as Admission


def report(*results: Started, waits: Reason = Reason.TIER_QUOTA) -> PassReport:
    one = request()
    wait = Decision(
        entry=entry_of(one),
        queue=TenantQueue(tenant_id="acme", tier="basic"),
        verdict=Admission.WAIT,
        reason=waits,
    )
    plan = Plan(admissions=(), waits=(wait,), virtual_time_by_tier={}, capacity_holds={}, starts_from=None)
    snapshot = Snapshot(ledger=Ledger(admission_version=0), queues=())
    starts = [Start(request=one, result=result) for result in results]
    return PassReport(policy=policy(), snapshot=snapshot, plan=plan, starts=starts)


@pytest.mark.parametrize(
    ("of", "stuck"),
    [
        (report(), False),
        (report(waits=Reason.BATCH_FULL), True),
        (report(Started.RUNNING, waits=Reason.BATCH_FULL), False),
        (report(Started.UNKNOWN), True),
        (report(Started.UNKNOWN, Started.RUNNING), False),
        (report(Started.FAILED), False),
    ],
)
def test_a_pass_is_stuck_if_nothing_started_although_something_could(of: PassReport, stuck: bool) -> None:
    assert of.is_stuck is stuck


@pytest.mark.parametrize("verdict", Verdict)
def test_only_what_a_tier_queue_did_not_take_is_delivered_again(verdict: Verdict) -> None:
    judgement = Judgement(verdict=verdict, tenant_id="acme", tier="basic", reason="full")
    if verdict is Verdict.UNSENT:
        with pytest.raises(Throttled, match="the queue of tier basic did not accept a request: full"):
            check_sent([judgement])
    else:
        check_sent([judgement])


@pytest.mark.parametrize(
    ("recorded", "state", "status", "despite"),
    [
        (Recorded.FINISHED, State.SUCCEEDED, "Failed", True),
        (Recorded.FINISHED, State.SUCCEEDED, "Succeeded", False),
        (Recorded.FINISHED, State.FAILED, "Failed", False),
        (Recorded.STALE, State.SUCCEEDED, "Failed", False),
        (Recorded.FINISHED, None, "Failed", False),
    ],
)
def test_a_request_can_succeed_although_its_execution_failed(
    recorded: Recorded, state: State | None, status: str, despite: bool
) -> None:
    result = StatusResult(recorded=recorded, request=request(state=state) if state else None)
    assert result.succeeded_despite(status) is despite


def test_the_reconciler_lists_as_far_back_as_it_must() -> None:
    harness = Harness()
    longest = harness.limits.tiers[0].run_time_max
    asked: list[datetime] = []
    running = harness.executions.running

    def listed(*, since: datetime) -> dict[str, str]:
        asked.append(since)
        return running(since=since)

    harness.executions.running = listed  # type: ignore[method-assign]
    moments = {
        timedelta(0): longest,  # never listed before
        timedelta(minutes=5): LISTED_FOR,
        timedelta(minutes=61): longest,  # once an hour, as far back as an execution can last
        timedelta(hours=25, minutes=2): min(timedelta(hours=24, minutes=1) + LISTED_AGAIN, longest),
    }
    for later in moments:
        harness.reconcile.run(NOW + later)
    assert [NOW + later - since for later, since in zip(moments, asked, strict=True)] == list(moments.values())


def test_an_end_that_another_recorder_was_faster_with_is_stale() -> None:
    harness = Harness()
    request_id = harness.run_one()
    running = harness.request(request_id)

    class Faster:
        """Records the same end just before."""

        def finish(self, ends: Sequence[End], *given: Any) -> list[bool]:
            harness.scheduler.completer.finish([End(request=running, state=State.SUCCEEDED)], *given)
            return harness.scheduler.completer.finish(ends, *given)

    slower = replace(harness.record, scheduler=replace(harness.scheduler, completer=Faster()))  # type: ignore[arg-type]
    event = StatusEvent(display_name=display_name(request_id, 1), status="Succeeded", execution_arn="arn")
    (result,) = slower.settle([event], NOW + timedelta(seconds=60))
    assert isinstance(result, StatusResult)
    assert result.recorded is Recorded.STALE
    assert harness.scheduler.tables.ledger.read().used == 0
