"""The guard: a job whose role and tag name different tenants is stopped, and no other."""

from dataclasses import dataclass, field

import pytest

from tests.build import ACCOUNT
from trainyard.application.guard import Guard, JobFacts, JobKind, JobStarted
from trainyard.contracts.events import parse_job_status
from trainyard.domain.errors import Malformed

PREFIX = f"arn:aws:iam::{ACCOUNT}:role/trainyard/yard/tenants/yard-"


@dataclass
class Jobs:
    known: JobFacts
    stopped: list[str] = field(default_factory=list)

    def facts(self, job: JobStarted) -> JobFacts:
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
        (f"arn:aws:iam::{ACCOUNT}:role/other", "acme", False),
        (f"arn:aws:iam::{ACCOUNT}:role/other", None, False),
    ],
)
def test_a_job_is_stopped_when_role_and_tag_disagree(
    role: str, tag: str | None, stopped: bool, told: bool
) -> None:
    tags = {"trainyard:tenant": tag} if tag else {}
    jobs = Jobs(JobFacts(role_arn=role, tags=tags))
    started = JobStarted(
        kind=JobKind.TRAINING, name="j", arn="a", role_arn=role if told else None, tags=tags if told else None
    )
    reason = Guard(jobs=jobs, role_prefix=PREFIX).check(started)
    assert (reason is not None) == stopped
    assert jobs.stopped == (["j"] if stopped else [])


def test_events_of_both_kinds_are_read_and_others_refused() -> None:
    event = {
        "id": "1",
        "account": ACCOUNT,
        "time": "2026-11-21T12:00:00Z",
        "source": "aws.sagemaker",
        "detail-type": "SageMaker Training Job State Change",
        "detail": {"TrainingJobName": "t", "TrainingJobArn": "a", "RoleArn": "r", "Tags": {"x": "y"}},
    }
    read = parse_job_status(event)
    assert (read.kind, read.name, read.role_arn, read.tags) == (JobKind.TRAINING, "t", "r", {"x": "y"})
    processing = event | {
        "detail-type": "SageMaker Processing Job State Change",
        "detail": {"ProcessingJobName": "p", "ProcessingJobArn": "a"},
    }
    assert parse_job_status(processing).kind is JobKind.PROCESSING
    with pytest.raises(Malformed):
        parse_job_status(event | {"detail-type": "SageMaker Transform Job State Change"})
