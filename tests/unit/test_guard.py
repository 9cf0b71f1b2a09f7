"""The guard: a job whose role and tag name different tenants is stopped, and no other."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from testing.service import ACCOUNT
from trainyard.application.scheduling.guard import Guard, JobIdentity, JobStarted
from trainyard.contracts.jobs import parse_job_status
from trainyard.domain.errors import Malformed
from trainyard.domain.prices import JobKind

EVENTS = Path(__file__).parents[2] / "events"
PREFIX = f"arn:aws:iam::{ACCOUNT}:role/trainyard/yard/tenants/yard--"
POOLED = f"arn:aws:iam::{ACCOUNT}:role/trainyard/yard/tenants/pool/yard.pool--"


@dataclass
class Jobs:
    known: JobIdentity
    stopped: list[str] = field(default_factory=list)

    def facts(self, job: JobStarted) -> JobIdentity:
        return self.known

    def stop(self, job: JobStarted) -> None:
        self.stopped.append(job.name)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(
    ("role", "tag", "stopped"),
    [
        (f"{PREFIX}acme", "acme", False),
        (f"{PREFIX}acme", "acme1", True),
        (f"{PREFIX}acme1", "acme", True),
        (f"{PREFIX}acme", None, True),
        (f"{POOLED}acme", "acme", False),
        (f"{POOLED}acme", "acme1", True),
        (f"arn:aws:iam::{ACCOUNT}:role/other", "acme", False),
        (f"arn:aws:iam::{ACCOUNT}:role/other", None, False),
    ],
)
def test_a_job_is_stopped_when_role_and_tag_disagree(
    role: str, tag: str | None, stopped: bool, told: bool
) -> None:
    tags = {"trainyard:tenant": tag} if tag else {}
    jobs = Jobs(JobIdentity(role_arn=role, tags=tags))
    started = JobStarted(
        kind=JobKind.TRAINING, name="j", arn="a", role_arn=role if told else None, tags=tags if told else None
    )
    reason = Guard(jobs=jobs, role_prefixes=(PREFIX, POOLED)).check(started)
    assert (reason is not None) == stopped
    assert jobs.stopped == (["j"] if stopped else [])


@pytest.mark.parametrize(
    ("tags", "read"),
    [
        (
            [{"Key": "trainyard:tenant", "Value": "acme"}, {"Key": "a", "Value": ""}],
            {"trainyard:tenant": "acme", "a": ""},
        ),
        ({"trainyard:tenant": "acme"}, {"trainyard:tenant": "acme"}),
        ([], {}),
        ({}, {}),
        (None, None),
        ("acme", None),
        (["acme"], None),
        ([{"Key": ["x"]}], None),
        ([{"Key": "trainyard:tenant"}], None),
        ({"trainyard:tenant": 1}, None),
    ],
)
def test_tags_are_read_as_schema_and_guide_have_them_and_asked_for_where_they_are_neither(
    tags: object, read: dict[str, str] | None
) -> None:
    event = json.loads((EVENTS / "training-job-in-progress.json").read_text(encoding="utf-8"))
    event["detail"]["Tags"] = tags
    job = parse_job_status(event)
    assert job.tags == read
    jobs = Jobs(JobIdentity(role_arn=f"{PREFIX}acme", tags={"trainyard:tenant": "acme1"}))
    Guard(jobs=jobs, role_prefixes=(PREFIX, POOLED)).check(job)
    assert jobs.stopped == ([] if read and "trainyard:tenant" in read else ["pipelines-abcdefghijkl-Train-000001"])


def test_events_of_both_kinds_are_read_and_others_refused() -> None:
    training, processing = (
        json.loads((EVENTS / f"{name}-job-in-progress.json").read_text(encoding="utf-8"))
        for name in ("training", "processing")
    )
    read = parse_job_status(training)
    assert (read.kind, read.name) == (JobKind.TRAINING, "pipelines-abcdefghijkl-Train-000001")
    assert (str(read.role_arn).rpartition("-")[2], (read.tags or {})["trainyard:tenant"]) == ("acme", "acme")
    other = parse_job_status(processing)
    assert (other.kind, other.role_arn, other.tags) == (JobKind.PROCESSING, None, None)
    with pytest.raises(Malformed):
        parse_job_status(training | {"detail-type": "SageMaker Transform Job State Change"})


def test_a_transform_whose_model_was_deleted_is_stopped_if_it_is_tagged_as_a_tenants() -> None:
    for tags, stopped in (({"trainyard:tenant": "acme"}, True), ({}, False)):
        jobs = Jobs(JobIdentity(role_arn="", tags=tags))
        job = JobStarted(kind=JobKind.TRANSFORM, name="j", arn="a", role_arn=None, tags=tags)
        reason = Guard(jobs=jobs, role_prefixes=(PREFIX, POOLED)).check(job)
        assert ("its model was deleted" in str(reason)) is stopped
        assert jobs.stopped == (["j"] if stopped else [])
