"""The guarantees of the template, checked in template.yaml itself."""

import fnmatch
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from local.cloud import REPOSITORY
from local.deploy import load_template
from tests.transformed import transformed
from trainyard.persistence.bell import BELL, BY_NOTE, BY_RING, wakes_dispatcher
from trainyard.persistence.ledger import BY_END, BY_PASS, LEDGER, NOBODY, SOMEBODY

TEMPLATE = load_template(REPOSITORY / "template.yaml")
SOURCE = (REPOSITORY / "template.yaml").read_text(encoding="utf-8")


def resources(kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the resources of a type, those inside loops too."""
    for name, resource in TEMPLATE["Resources"].items():
        found = resource[2] if name.startswith("Fn::ForEach::") else {name: resource}
        yield from ((inner, r) for inner, r in found.items() if r["Type"] == kind)


def targets_of(rule: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a rule's targets, those under a condition too."""
    return [target.get("Fn::If", ["", target])[1] for target in rule["Properties"]["Targets"]]


def statements() -> Iterator[dict[str, Any]]:
    def walk(node: Any) -> Iterator[dict[str, Any]]:
        if isinstance(node, dict):
            if node.get("Effect"):
                yield node
            for inner in node.values():
                yield from walk(inner)
        elif isinstance(node, list):
            for inner in node:
                yield from walk(inner)

    return walk(TEMPLATE)


def test_no_policy_is_wide_but_those_that_say_why() -> None:
    wide = [s.get("Sid") for s in statements() if s["Effect"] == "Allow" and s.get("Resource") == "*"]
    assert wide == [
        "AccountDecidesByIam",
        "LookForScaling",
        "ListWhatIsDeployed",
        "NoResourceKnown",
        "JobsInTheVpc",
        "DeliverLogsAndTraces",
        "LogInToRegistry",
        "ModelsInTheVpc",
        "FindOwnModels",
        "DeliverLogsAndTraces",
        "AccountDecidesByIam",
        "FindEndpoints",
        "ReadScaling",
        "ActivateCostTags",
        "MeterUsage",
    ]
    assert "FullAccess" not in SOURCE
    assert not [s for s in statements() if s["Effect"] == "Allow" and s["Action"] in ("*", ["*"])]


def test_each_wide_statement_has_its_reason_beside_it() -> None:
    lines = SOURCE.splitlines()
    for number, line in enumerate(lines):
        if line.strip() == "Resource: '*'":
            assert any(above.strip().startswith("#") for above in lines[number - 18 : number]), line


def test_whatever_a_service_may_do_it_may_do_for_this_stacks_sources_alone() -> None:
    by_services = [s for s in statements() if "Service" in s.get("Principal", {})]
    assert len(by_services) >= 7
    for statement in by_services:
        keys = {key for conditions in statement["Condition"].values() for key in conditions}
        assert "aws:SourceArn" in keys, statement


def test_every_role_is_denied_the_buckets_of_other_accounts() -> None:
    with_s3 = [
        name
        for kind in ("AWS::Serverless::Function", "AWS::IAM::Role")
        for name, resource in resources(kind)
        if "s3:" in json.dumps(resource) and "OwnBucketsOnly" not in json.dumps(resource)
    ]
    assert with_s3 == []


@pytest.mark.parametrize(("name", "queue"), list(resources("AWS::SQS::Queue")))
def test_every_queue_is_encrypted_and_has_dead_letters_or_is_one(name: str, queue: dict[str, Any]) -> None:
    properties = queue["Properties"]
    assert properties["SqsManagedSseEnabled"] is True
    if "RedrivePolicy" in properties:
        assert properties["RedrivePolicy"]["maxReceiveCount"] >= 8
        assert properties["VisibilityTimeout"] >= 6 * 30
    else:
        assert properties["MessageRetentionPeriod"] == 14 * 24 * 3600


def test_whoever_takes_messages_may_make_those_that_failed_come_soon() -> None:
    taken = 0
    for name, function in resources("AWS::Serverless::Function"):
        events = function["Properties"].get("Events", {}).values()
        queues = [event["Properties"]["Queue"] for event in events if event["Type"] == "SQS"]
        if queues:
            (allowed,) = (
                one
                for policy in function["Properties"].get("Policies", [])
                for one in policy.get("Statement", [])
                if one["Sid"] == "TakeUpAgainSoon"
            )
            assert allowed["Action"] == ["sqs:GetQueueUrl", "sqs:ChangeMessageVisibility"]
            found = allowed["Resource"] if isinstance(allowed["Resource"], list) else [allowed["Resource"]]
            assert [queue for queue in queues if queue not in found and "Tier" not in str(queue)] == [], name
            taken += len(queues)
    assert taken >= 3


def test_every_queue_has_one_policy_which_names_that_queue_alone_and_refuses_plain_http() -> None:
    """SQS takes no statement that names several resources."""
    written = transformed()["Resources"]
    queues = {name for name, resource in written.items() if resource["Type"] == "AWS::SQS::Queue"}
    guarded: list[str] = []
    for resource in written.values():
        if resource["Type"] == "AWS::SQS::QueuePolicy":
            (url,) = resource["Properties"]["Queues"]
            queue = url["Ref"] if "Ref" in url else url["Fn::GetAtt"][0]
            statements = resource["Properties"]["PolicyDocument"]["Statement"]
            assert all(s["Resource"] == {"Fn::GetAtt": [queue, "Arn"]} for s in statements), queue
            assert any(s["Sid"] == "TlsOnly" and s["Effect"] == "Deny" for s in statements), queue
            guarded.append(queue)
    assert sorted(guarded) == sorted(queues)


def test_only_the_rules_that_feed_a_queue_may_send_to_it() -> None:
    written = transformed()["Resources"]
    feeding: dict[str, set[str]] = {}
    for name, resource in written.items():
        if resource["Type"] == "AWS::Events::Rule":
            for target in targets_of(resource):
                for arn in (target["Arn"], target["DeadLetterConfig"]["Arn"]):
                    if arn.get("Fn::GetAtt", [""])[0].endswith("Queue"):
                        feeding.setdefault(arn["Fn::GetAtt"][0], set()).add(name)
    allowed: dict[str, set[str]] = {}
    for resource in written.values():
        if resource["Type"] == "AWS::SQS::QueuePolicy":
            for statement in resource["Properties"]["PolicyDocument"]["Statement"]:
                if statement["Effect"] == "Allow":
                    sources = statement["Condition"]["ArnEquals"]["aws:SourceArn"]
                    queue = statement["Resource"]["Fn::GetAtt"][0]
                    sources = [source.get("Fn::If", ["", source])[1] for source in sources]
                    allowed[queue] = {source["Fn::GetAtt"][0] for source in sources}
    assert allowed == feeding
    assert set(allowed) == {"UploadsQueue", "StatusQueue", "UndeliveredQueue"}


NAMED_WITHIN_THE_STACK = (
    "Custom::PublishedCode",
    "AWS::Athena::NamedQuery",
    "AWS::Lambda::Alias",
    "AWS::ApiGatewayV2::Stage",
    "AWS::Cognito::UserPoolGroup",
)
"""A query of the stack's work group, an alias of a function, a stage of an API, a group of a user pool."""
VERSIONED = ("AWS::Lambda::Version", "AWS::Lambda::LayerVersion")
"""Another creation is another version."""


def test_every_name_carries_the_stacks_so_that_stages_stand_side_by_side() -> None:
    """What SAM names by the logical id collides with the next stage in the same account and Region."""
    named = 0
    for logical_id, resource in transformed()["Resources"].items():
        for member, value in resource.get("Properties", {}).items():
            is_name = (member == "Name" or member.endswith("Name")) and member != "MetricName"
            if not is_name or resource["Type"] in NAMED_WITHIN_THE_STACK:
                continue
            refers = isinstance(value, dict) and value.get("Ref") in transformed()["Resources"]
            assert refers or "AWS::StackName" in json.dumps(value), f"{logical_id}.{member} is {value}"
            named += 1
    assert named > 40


def test_metrics_alarms_and_dashboard_speak_of_one_stack() -> None:
    namespace = "Trainyard/${AWS::StackName}"
    variables = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
    assert variables["POWERTOOLS_METRICS_NAMESPACE"] == {"Fn::Sub": namespace}
    own = 0
    for name, alarm in resources("AWS::CloudWatch::Alarm"):
        if alarm["Properties"]["Namespace"] not in ("AWS/SQS", "AWS/Lambda"):
            assert alarm["Properties"]["Namespace"] == {"Fn::Sub": namespace}, name
            own += 1
    assert own >= 7
    dashboard = TEMPLATE["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    written = json.loads(dashboard.replace("${AWS::StackName}", "yard").replace("${AWS::Region}", "us-east-1"))
    text = json.dumps(written)
    assert text.count("Trainyard") == text.count("Trainyard/yard") > 10
    assert "{Trainyard" not in text, "SEARCH takes a namespace with other signs than letters in quotes alone"


def test_the_dashboard_shows_every_alarm_dead_letter_queue_and_function_and_its_widgets_do_not_overlap() -> None:
    resource = transformed()["Resources"]
    body = resource["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    shown = set(re.findall(r"\$\{(\w+)(?:\.\w+)?\}", body))
    kinds = ("AWS::CloudWatch::Alarm", "AWS::StepFunctions::StateMachine", "AWS::Lambda::Function")
    watched = {name for name, each in resource.items() if each["Type"] in kinds}
    watched |= {name for name in resource if name.endswith("DeadLetterQueue")} | {"UndeliveredQueue"}
    assert watched - shown == {"PublisherFunction"}, "which runs at deployments only"
    cells = [
        (x, y)
        for widget in json.loads(re.sub(r"\$\{[^}]*\}", "x", body))["widgets"]
        for x in range(widget["x"], widget["x"] + widget["width"])
        for y in range(widget["y"], widget["y"] + widget["height"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_what_bears_a_name_of_its_own_and_is_kept_does_not_outlive_a_failed_first_deployment() -> None:
    """What a failed creation has left behind blocks the next creation of the same name."""
    for name, resource in transformed()["Resources"].items():
        policy = json.dumps(resource.get("DeletionPolicy", ""))
        assert '"Retain"' not in policy or resource["Type"] in VERSIONED, name


def test_every_bucket_of_the_stack_refuses_plain_http() -> None:
    buckets = {name for name, _ in resources("AWS::S3::Bucket")}
    closed = {
        policy["Properties"]["Bucket"]["Ref"]
        for _, policy in resources("AWS::S3::BucketPolicy")
        if any(s.get("Sid") == "TlsOnly" for s in policy["Properties"]["PolicyDocument"]["Statement"])
    }
    assert closed == buckets


@pytest.mark.parametrize(("name", "table"), list(resources("AWS::DynamoDB::Table")))
def test_every_table_is_encrypted_recoverable_and_kept_in_prod(name: str, table: dict[str, Any]) -> None:
    assert table["Properties"]["SSESpecification"] == {"SSEEnabled": True}
    assert table["Properties"]["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["DeletionPolicy"] == {"Fn::If": ["IsProd", "RetainExceptOnCreate", "Delete"]}


@pytest.mark.parametrize(("name", "rule"), list(resources("AWS::Events::Rule")))
def test_every_rule_has_a_dead_letter_queue(name: str, rule: dict[str, Any]) -> None:
    assert all("DeadLetterConfig" in target for target in targets_of(rule))


def test_no_flood_of_messages_takes_the_concurrency_that_dispatcher_and_recorder_need() -> None:
    mappings = [r for r in transformed()["Resources"].values() if r["Type"] == "AWS::Lambda::EventSourceMapping"]
    from_queues = [m["Properties"] for m in mappings if "ScalingConfig" in m["Properties"] or _of_queue(m)]
    most = [properties["ScalingConfig"]["MaximumConcurrency"] for properties in from_queues]
    assert len(most) == 6
    assert all(count >= 2 for count in most), "Lambda takes nothing lower"
    assert sum(most) == 32, "docs/scale.md names it"


def _of_queue(mapping: dict[str, Any]) -> bool:
    return "Queue" in str(mapping["Properties"]["EventSourceArn"])


def test_every_batch_of_messages_can_fail_in_part() -> None:
    sources = [
        event["Properties"]
        for _, function in resources("AWS::Serverless::Function")
        for event in function["Properties"].get("Events", {}).values()
        if event["Type"] == "SQS"
    ]
    mappings = [mapping["Properties"] for _, mapping in resources("AWS::Lambda::EventSourceMapping")]
    assert len(sources + mappings) == 4
    assert all(s["FunctionResponseTypes"] == ["ReportBatchItemFailures"] for s in sources + mappings)


def test_the_rule_matches_incoming_alone_so_that_nothing_the_service_writes_can_start_a_training() -> None:
    pattern = TEMPLATE["Resources"]["UploadsRule"]["Properties"]["EventPattern"]
    silo, pool = (branch["object"]["key"] for branch in pattern["detail"]["$or"])
    assert (silo, pool) == ([{"prefix": "incoming/"}], [{"wildcard": "*/incoming/*"}])
    for written in ("receipts/churn/x.json", "models/churn/x/model.tar.gz", "reports/churn/x/input/incoming"):
        assert not written.startswith("incoming/")
        assert not fnmatch.fnmatchcase(f"acme/{written}", "*/incoming/*")


def test_only_the_dispatcher_may_start_the_pipeline() -> None:
    may = [
        name
        for name, function in resources("AWS::Serverless::Function")
        if "sagemaker:StartPipelineExecution" in json.dumps(function)
    ]
    assert may == ["DispatcherFunction"]


def test_the_bell_and_ends_while_somebody_waits_wake_the_dispatcher_and_nothing_else_does() -> None:
    events = TEMPLATE["Resources"]["DispatcherFunction"]["Properties"]["Events"]
    bell, ledger = [
        json.loads(one["Pattern"]) for one in events["Bell"]["Properties"]["FilterCriteria"]["Filters"]
    ]
    keys = [{name: {"S": [value]} for name, value in key.values} for key in (BELL, LEDGER)]
    assert bell == {"dynamodb": {"Keys": keys[0], "NewImage": {"by": {"S": [BY_RING]}}}}
    ended = {"by": {"S": [BY_END]}, "waiting": {"S": [SOMEBODY]}}
    assert ledger == {"dynamodb": {"Keys": keys[1], "NewImage": ended}}
    assert [wakes_dispatcher(BELL, {"by": by}) for by in (BY_RING, BY_NOTE)] == [True, False]
    for by, waiting in ((BY_END, SOMEBODY), (BY_END, NOBODY), (BY_PASS, SOMEBODY)):
        assert wakes_dispatcher(LEDGER, {"by": by, "waiting": waiting}) == ((by, waiting) == (BY_END, SOMEBODY))
    assert BELL.values[0] == LEDGER.values[0], "one shard of the stream shows both"
    assert TEMPLATE["Resources"]["SchedulerTable"]["Properties"]["StreamSpecification"] == {
        "StreamViewType": "NEW_IMAGE"
    }
    assert events["Timer"]["Properties"]["ScheduleExpression"] == "rate(1 minute)"


def test_the_access_log_of_the_api_has_nothing_that_contains_an_approval_link() -> None:
    stage = TEMPLATE["Resources"]["ApprovalsStage"]["Properties"]
    written = json.loads(stage["AccessLogSettings"]["Format"])
    assert set(written.values()) == {
        "$context.requestTime",
        "$context.requestId",
        "$context.identity.sourceIp",
        "$context.routeKey",
        "$context.status",
        "$context.responseLatency",
        "$context.integration.status",
    }
    assert stage["DefaultRouteSettings"]["ThrottlingRateLimit"] <= 5
    assert stage["DefaultRouteSettings"]["ThrottlingBurstLimit"] <= 10


def test_api_gateway_may_invoke_some_functions_and_by_their_routes_alone() -> None:
    permissions = [p["Properties"] for _, p in resources("AWS::Lambda::Permission")]
    of_api = [p for p in permissions if p["Principal"] == "apigateway.amazonaws.com"]
    assert {(p["FunctionName"]["Ref"], p["SourceArn"]["Fn::Sub"].rpartition(":")[2]) for p in of_api} == {
        ("ApprovalsFunction", "${ApprovalsApi}/*/*/approvals/*"),
        ("ApiFunction", "${Api}/*/*/v1/*"),
        ("OperationsFunction", "${Api}/*/*/v1/service*"),
        ("ConsoleFunction", "${Api}/*/GET/console*"),
        ("ConsoleFunction", "${Api}/*/OPTIONS/v1/*"),
    }
    routes = {
        route["Properties"]["RouteKey"]: route["Properties"]["AuthorizationType"]
        for _, route in resources("AWS::ApiGatewayV2::Route")
    }
    assert routes == {
        "GET /approvals/{link}": "NONE",
        "POST /approvals/{link}": "NONE",
        "ANY /v1/{path+}": "JWT",
        "ANY /v1/service": "JWT",
        "ANY /v1/service/{path+}": "JWT",
        "GET /console": "NONE",
        "GET /console/{file+}": "NONE",
        "OPTIONS /v1/{path+}": "NONE",
        "OPTIONS /v1/service": "NONE",
        "OPTIONS /v1/service/{path+}": "NONE",
    }


def test_no_user_of_the_api_can_say_of_himself_whose_he_is() -> None:
    (client,) = [client["Properties"] for _, client in resources("AWS::Cognito::UserPoolClient")]
    assert client["WriteAttributes"] == ["name"]
    assert "custom:tenant" in client["ReadAttributes"], "else it is in no token"
    (pool,) = [pool["Properties"] for _, pool in resources("AWS::Cognito::UserPool")]
    assert pool["AdminCreateUserConfig"] == {"AllowAdminCreateUserOnly": True}


def test_logs_are_kept_for_a_time_that_is_set() -> None:
    (group,) = [group for _, group in resources("AWS::Logs::LogGroup")]
    assert group["Properties"]["RetentionInDays"] == {"Ref": "LogRetentionDays"}
    loop = TEMPLATE["Resources"]["Fn::ForEach::LogGroups"][1]
    functions = {name.removesuffix("Function") for name, _ in resources("AWS::Serverless::Function")}
    assert set(loop) == functions | {"TenantMachines", "DeployModelMachine", "ApprovalsApi", "ApiAccess"}


def test_no_metric_has_a_tenant_dimension() -> None:
    for path in (REPOSITORY / "functions").rglob("*.py"):
        assert "Tenant=" not in path.read_text(encoding="utf-8"), path


def test_no_output_bears_the_name_of_a_list_parameter_which_sam_build_cannot_take() -> None:
    lists = {name for name, parameter in TEMPLATE["Parameters"].items() if "List" in parameter["Type"]}
    assert lists
    assert lists & set(TEMPLATE["Outputs"]) == set()


def test_a_notification_that_is_composed_has_only_text_that_the_service_has_checked() -> None:
    """EventBridge puts values into a template as they are: a tenant's quote or link would be in the message."""
    targets = [
        target
        for name, rule in resources("AWS::Events::Rule")
        if name.endswith("Notifications")
        for target in targets_of(rule)
    ]
    assert len(targets) == 6
    composed = [target for target in targets if "InputTransformer" in target]
    paths = {path for target in composed for path in target["InputTransformer"]["InputPathsMap"].values()}
    assert paths == {"$.detail-type", "$.detail.tenant_id", "$.detail.request_id"}
    for target in composed:
        names = set(re.findall(r"<([a-z]+)>", target["InputTransformer"]["InputTemplate"]))
        assert names == set(target["InputTransformer"]["InputPathsMap"]), "an unknown name stays as it is written"
        json.loads(target["InputTransformer"]["InputTemplate"])
    assert all("DeadLetterConfig" in target for target in targets)
    assert all("RoleArn" in target for target in targets)


def test_parameters_that_hold_secrets_have_no_echo() -> None:
    hidden = {name for name, parameter in TEMPLATE["Parameters"].items() if parameter.get("NoEcho")}
    assert hidden == {"NotificationWebhookKey", "NotificationWebhookUrl", "NotificationSlackUrl"}


def test_every_index_that_a_policy_names_is_one_of_its_table() -> None:
    """A right to an index that is not there is no right to the one that was meant."""
    indexes = {
        f"{table}.{index['IndexName']}"
        for table, resource in resources("AWS::DynamoDB::Table")
        for kind in ("GlobalSecondaryIndexes", "LocalSecondaryIndexes")
        for index in resource["Properties"].get(kind, [])
    }
    text = (REPOSITORY / "template.yaml").read_text(encoding="utf-8")
    named = {".".join(pair) for pair in re.findall(r"\$\{(\w+)\.Arn\}/index/([a-z-]+)", text)}
    assert named - indexes == set()
    assert named


def test_cloudfront_caches_nothing_that_the_api_answers_and_passes_no_host_on() -> None:
    (distribution,) = [
        each["Properties"]["DistributionConfig"] for _, each in resources("AWS::CloudFront::Distribution")
    ]
    default = distribution["DefaultCacheBehavior"]
    assert default["CachePolicyId"] == "4135ea2d-6df8-44a3-9df3-4b5a84be39ad"
    assert default["OriginRequestPolicyId"] == "b689b0a8-53d0-40ab-baf2-68738e2966ac"
    (files,) = distribution["CacheBehaviors"]
    assert (files["PathPattern"], files["AllowedMethods"]) == ("/console*", ["GET", "HEAD"])
    assert {each["ViewerProtocolPolicy"] for each in (default, files)} <= {"https-only", "redirect-to-https"}
    (origin,) = distribution["Origins"]
    assert origin["CustomOriginConfig"]["OriginProtocolPolicy"] == "https-only"
