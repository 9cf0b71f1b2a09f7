"""Each patch in local/patches.py is needed: its test fails when MiniStack no longer lacks the feature."""

import inspect
import json
import subprocess
import sys
from datetime import UTC, datetime
from itertools import islice
from random import Random
from typing import Any

import pytest
from ministack.core import iam_actions, iam_evaluator
from ministack.services import (
    apigateway,
    cloudwatch,
    cloudwatch_logs,
    cognito,
    eventbridge,
    lambda_svc,
    s3,
    scheduler,
    sns,
)
from ministack.services.cloudformation import provisioners

from local.schedule_patches import _refusal, _zoned, schedule_as_aws
from trainyard.domain.schedules import parse_schedule

LOOK = "look whether local/patches.py can do without it"


def test_cloudformation_does_not_know_sagemaker_pipelines() -> None:
    assert "AWS::SageMaker::Pipeline" not in provisioners._RESOURCE_HANDLERS, LOOK


def test_cloudformation_does_not_know_athenas_named_queries() -> None:
    assert "AWS::Athena::NamedQuery" not in provisioners._RESOURCE_HANDLERS, LOOK


def test_cloudformation_does_not_know_api_destinations_and_a_failed_post_is_lost() -> None:
    assert not {"AWS::Events::Connection", "AWS::Events::ApiDestination"} & set(provisioners._RESOURCE_HANDLERS), (
        LOOK
    )
    assert "_dispatch_to_sqs" not in inspect.getsource(eventbridge._deliver_to_api_destination), LOOK


def test_apis_have_an_address_that_no_client_resolves_and_forgive_what_aws_refuses() -> None:
    create = inspect.getsource(provisioners._apigw_v2_api_create)
    assert "{api_id}.execute-api.{_MINISTACK_HOST}" in create, LOOK
    handle, invoke = map(inspect.getsource, (apigateway.handle_execute, apigateway._invoke_lambda_proxy))
    assert "hrottl" not in handle, LOOK
    assert "413" not in handle, LOOK
    assert "policy" not in invoke, LOOK


def test_cognito_cannot_delete_attributes() -> None:
    assert "AdminDeleteUserAttributes" not in inspect.getsource(cognito)


def test_a_client_of_a_user_pool_reads_and_writes_whatever_its_settings_say() -> None:
    sources = inspect.getsource(cognito._fake_token) + inspect.getsource(cognito._update_user_attributes)
    assert "ReadAttributes" not in sources, LOOK
    assert "WriteAttributes" not in sources, LOOK


def test_a_subscription_by_mail_is_confirmed_at_once() -> None:
    assert 'needs_confirmation = protocol in ("http", "https")' in inspect.getsource(sns._subscribe), LOOK


def test_schedules_are_read_by_utc_whatever_their_zone_and_refuse_nothing() -> None:
    assert "imezone" not in inspect.getsource(scheduler._tick_schedules).replace("timezone.utc", ""), LOOK
    assert "ZoneInfo" not in inspect.getsource(scheduler), LOOK
    assert "EndDate" not in inspect.getsource(scheduler._create_schedule).partition("target =")[0], LOOK


def test_a_cron_expression_is_due_by_the_clock_of_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (eventbridge, "_parse_cron_fields"),
        (eventbridge, "_cron_next_fire"),
        (scheduler, "_create_schedule"),
        (scheduler, "_update_schedule"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name))  # restored afterwards
    schedule_as_aws()
    random = Random(22)
    days = ("* * ?", "? * MON-FRI", "L * ?", "? * 2#1", "15W * ?", "1,15 1-6 ?", "? * 6L")
    for zone in ("UTC", "Europe/Zurich", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"):
        for _ in range(12):
            minutes, hours = random.choice(("0", "30", "0/25", "7,50")), random.choice(("2", "1-3", "*/7", "23"))
            expression = f"cron({minutes} {hours} {random.choice(days)} *)"
            body = _zoned({"ScheduleExpression": expression, "ScheduleExpressionTimezone": zone})
            at = datetime(2027, random.randrange(1, 13), random.randrange(1, 28), 12, tzinfo=UTC)
            expected = list(islice(parse_schedule(f"{expression} {zone}").due(at), 40))
            for due in expected:
                at = eventbridge._cron_next_fire(eventbridge._parse_cron_fields(body["ScheduleExpression"]), at)
                assert at == due, (expression, zone)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ScheduleExpressionTimezone": "Europe/Zuerich"}, "Timezone"),
        ({"ScheduleExpression": "cron(0 3 * * * *)"}, "Invalid Schedule Expression"),
        ({"StartDate": "2020-01-01T00:00:00Z"}, "StartDate"),
        ({"EndDate": "2020-01-01T00:00:00Z"}, "EndDate"),
    ],
)
def test_a_schedule_that_aws_does_not_take_is_refused(changes: dict[str, str], words: str) -> None:
    body = {"ScheduleExpression": "cron(0 3 * * ? *)"} | changes
    status, _, answer = _refusal(scheduler, eventbridge._parse_cron_fields, body)
    assert (status, words in str(answer)) == (400, True)
    assert _refusal(scheduler, eventbridge._parse_cron_fields, {"ScheduleExpression": "rate(1 day)"}) is None


def test_schedules_do_not_carry_source_and_type_to_a_bus() -> None:
    sources = inspect.getsource(scheduler) + inspect.getsource(eventbridge._invoke_target)
    assert "EventBridgeParameters" not in sources, LOOK


def test_events_of_s3_do_not_tell_the_objects_version() -> None:
    assert "version-id" not in inspect.getsource(s3._fire_s3_event), LOOK


def test_authorisation_takes_batches_for_actions_of_their_own() -> None:
    headers = {"x-amz-target": "AmazonSQS.SendMessageBatch"}
    assert iam_actions.extract_iam_action("sqs", "POST", "/", headers, b"{}", {}) == "sqs:SendMessageBatch", LOOK


def test_authorisation_leaves_out_role_paths_and_schedule_groups() -> None:
    role = iam_actions.extract_resource_arn(
        "iam", "POST", "/", {}, b"", {"RoleName": ["r"], "Path": ["/p/"]}, "us-east-1", "123456789012"
    )
    schedule = iam_actions.extract_resource_arn(
        "scheduler", "POST", "/schedules/s", {}, json.dumps({"GroupName": "g"}).encode(), {}, "us-east-1", "1" * 12
    )
    assert role.endswith(":role/r"), LOOK
    assert schedule.endswith(":schedule/default/s"), LOOK


def test_authorisation_does_not_know_the_permissions_boundary() -> None:
    assert "iam:permissionsboundary" not in inspect.getsource(iam_evaluator).lower(), LOOK


def test_policy_variables_are_compared_as_they_are_written_and_a_principal_is_its_session() -> None:
    program = (
        "from ministack.core import iam_evaluator as e; "
        "c = e.EvalContext('arn:aws:sts::1:assumed-role/r/s', 'AssumedRole', '1', 's3:GetObject', "
        "'arn:aws:s3:::b/acme/x', '', principal_keys={'aws:principaltag/t': 'acme'}); "
        "r = 'arn:aws:s3:::b/${aws:PrincipalTag/t}/*'; "
        "p = e.parse_policy_document({'Statement': {'Effect': 'Allow', 'Action': 's3:*', 'Resource': r}}); "
        "print(e.evaluate(c, [p]).decision, e._resolve_condition_key('aws:PrincipalArn', c))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.split()[-2:] == ["ImplicitDeny", "arn:aws:sts::1:assumed-role/r/s"], LOOK


def test_authorisation_does_not_know_the_terms_of_a_grant() -> None:
    assert "granteeprincipal" not in inspect.getsource(iam_evaluator).lower(), LOOK
    assert "granteeprincipal" not in inspect.getsource(iam_actions).lower(), LOOK


def test_a_failed_functions_class_is_lost_on_its_way_to_step_functions() -> None:
    assert 'error_type = "Runtime.HandlerError"' in inspect.getsource(lambda_svc), LOOK


def test_authorisation_does_not_know_the_keys_of_an_object() -> None:
    assert "encryption-aws-kms-key-id" not in inspect.getsource(iam_actions), LOOK


def test_state_machines_written_in_yaml_are_not_read() -> None:
    source = inspect.getsource(provisioners._sfn_definition) if hasattr(provisioners, "_sfn_definition") else ""
    assert "yaml.safe_load" not in source, LOOK


def test_events_of_aws_services_are_refused_from_customers() -> None:
    entry = {"Source": "aws.sagemaker", "DetailType": "x", "Detail": "{}"}
    program = (
        "import json; from ministack.services import eventbridge; "
        f"print(json.loads(eventbridge._put_events({{'Entries': [{entry!r}]}})[2])['FailedEntryCount'])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.split()[-1] == "1", LOOK


def test_bus_policies_are_not_provisioned() -> None:
    assert "AWS::Events::EventBusPolicy" not in inspect.getsource(provisioners), LOOK


def test_alarms_emit_no_event() -> None:
    assert "CloudWatch Alarm State Change" not in inspect.getsource(cloudwatch), LOOK


def test_rules_reach_queues_whatever_the_queues_policies_say() -> None:
    assert "queue_policy_allows" not in inspect.getsource(eventbridge), LOOK


def test_queue_policies_of_several_queues_are_taken() -> None:
    assert "Invalid value for the parameter Policy" not in inspect.getsource(provisioners), LOOK


def test_log_events_are_not_filtered_by_the_prefix_of_their_stream() -> None:
    assert "logStreamNamePrefix" not in inspect.getsource(cloudwatch_logs._filter_log_events), LOOK
    assert "nextToken" not in inspect.getsource(cloudwatch_logs._filter_log_events), LOOK


@pytest.mark.parametrize("operation", ["DeleteAlarms", "DescribeAlarms"])
def test_authorisation_does_not_name_alarms_of_a_list(operation: str) -> None:
    headers = {"x-amz-target": f"GraniteServiceVersion20100801.{operation}"}
    request: Any = ("monitoring", "POST", "/", headers, b'{"AlarmNames": ["a"]}', {}, "us-east-1", "123456789012")
    assert iam_actions.extract_resource_arn(*request) == "*", LOOK


def test_authorisation_names_log_groups_without_their_streams() -> None:
    arn = iam_actions.extract_resource_arn(
        "logs",
        "POST",
        "/",
        {"x-amz-target": "Logs_20140328.GetLogEvents"},
        b'{"logGroupName": "g", "logStreamName": "s"}',
        {},
        "us-east-1",
        "123456789012",
    )
    assert arn == "arn:aws:logs:us-east-1:123456789012:log-group:g", LOOK
