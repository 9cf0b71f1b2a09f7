"""A new model is judged beside the live one, and takes its place by itself only if it is not worse."""

import json
from typing import Any

import pytest

from cli.serving import aliases_of
from local.demo import data
from tests.e2e.conftest import Harness, eventually
from trainyard.domain.requests import Request, State

BAD = ("--hyperparameter", "max_iter=1", "--hyperparameter", "learning_rate=0.01")
"""One tree that hardly counts: better than knowing nothing, and far worse than a hundred of them."""


def trained(harness: Harness, tenant_id: str, number: int) -> Request:
    """Upload more rows than before, and wait until they are trained on; return the request."""
    lines = data.bundled("cancer").splitlines()
    harness.drop(tenant_id, "incoming/cells/data.csv", b"\n".join(lines[: 500 + 20 * number]))
    requests = harness.ended(tenant_id, number)
    newest = max(requests, key=lambda request: request.arrived_at)
    assert newest.state is State.SUCCEEDED, newest.reason
    return newest


def models(harness: Harness, capsys: pytest.CaptureFixture[str], tenant_id: str) -> dict[int, Any]:
    capsys.readouterr()
    assert harness.run("models", tenant_id, "--json") == 0
    return {view["version"]: view for view in json.loads(capsys.readouterr().out)}


@pytest.mark.thorough
def test_a_worse_model_waits_for_somebody_and_a_better_one_goes_live(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = "multi-model:approval=if-better:margin=-0.02:segment_loss_max=0.5:compare_by=mean radius"
    harness.create("challenged", "--serving", rule)

    def live() -> int | None:
        alias = aliases_of(harness.deployment).get("challenged", "cells")
        return alias.live

    def comment(version: int) -> str:
        return str(models(harness, capsys, "challenged")[version]["comment"] or "")

    first = trained(harness, "challenged", 1)
    assert eventually(lambda: live() == 1, 60)
    assert comment(1) == "approved by the data set's rule"

    assert harness.run("tenant", "update", "challenged", *BAD) == 0
    worse = trained(harness, "challenged", 2)
    assert eventually(lambda: comment(2).startswith("not approved by the data set's rule: roc_auc -"), 60)
    assert live() == 1
    assert worse.outcome is not None
    assert (worse.outcome.champion, worse.outcome.not_compared) == (first.request_id, None)
    assert worse.outcome.gain is not None
    assert worse.outcome.gain < -0.02
    receipt = harness.receipt(worse)["result"]["champion"]
    assert (receipt["request_id"], receipt["gain"]) == (first.request_id, worse.outcome.gain)
    package = harness.cloud.client("sagemaker").describe_model_package(
        ModelPackageName=worse.outcome.model_package_arn
    )
    properties = package["CustomerMetadataProperties"]
    assert (properties["registered_as"], properties["champion"]) == ("challenger", first.request_id)
    assert properties["tenant"] == "challenged"
    segments = json.loads(report(harness, worse))["champion"]["segments"]
    assert {each["name"].rpartition("] ")[2] for each in segments} == {"mean radius"}

    assert harness.run("tenant", "update", "challenged", "--hyperparameter", "max_iter=100") == 0
    better = trained(harness, "challenged", 3)
    assert eventually(lambda: live() == 3, 60)
    assert better.outcome is not None
    assert better.outcome.champion == first.request_id, "the version before was never live"
    assert comment(3).startswith("approved by the data set's rule: roc_auc ")


@pytest.mark.thorough
def test_a_champion_whose_archive_is_gone_stops_no_training(harness: Harness) -> None:
    harness.create("orphaned")
    first = trained(harness, "orphaned", 1)
    tenant = harness.deployment.tenant("orphaned")
    archive = f"{tenant.root}models/cells/{first.request_id}/model.tar.gz"
    harness.cloud.client("s3").delete_object(Bucket=tenant.bucket, Key=archive)
    second = trained(harness, "orphaned", 2)
    assert second.outcome is not None
    assert (second.outcome.champion, second.outcome.not_compared) == (first.request_id, "its archive is gone")


def report(harness: Harness, request: Request) -> bytes:
    tenant = harness.deployment.tenant(request.tenant_id)
    key = f"{tenant.root}reports/cells/{request.request_id}/evaluation/evaluation.json"
    return bytes(harness.cloud.client("s3").get_object(Bucket=tenant.bucket, Key=key)["Body"].read())
