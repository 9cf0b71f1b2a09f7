"""What MiniStack 1.5 lacks for this template, mended one by one; each goes when its test in tests/e2e says so."""

import json
from collections.abc import Callable
from typing import Any

Answer = dict[str, Any]


def mend_all(sagemaker: Callable[[], Any]) -> None:
    """Apply every mend; `sagemaker` returns a client of the SageMaker server."""
    provision_pipelines(sagemaker)
    carry_scheduled_events()


def provision_pipelines(sagemaker: Callable[[], Any]) -> None:
    """CloudFormation refuses a stack with an AWS::SageMaker::Pipeline: hand it to the SageMaker server."""
    from ministack.services.cloudformation import provisioners

    def request(properties: Answer) -> Answer:
        location = properties["PipelineDefinition"]["PipelineDefinitionS3Location"]
        return {
            "PipelineName": properties["PipelineName"],
            "RoleArn": properties["RoleArn"],
            "PipelineDefinitionS3Location": {"Bucket": location["Bucket"], "ObjectKey": location["Key"]},
        }

    def create(logical_id: str, properties: Answer, stack_name: str) -> tuple[str, Answer]:
        sagemaker().create_pipeline(ClientRequestToken=f"{stack_name}-{logical_id}".ljust(32, "-"), **request(properties))
        return properties["PipelineName"], {}

    def update(physical_id: str, old: Answer, new: Answer, stack_name: str) -> tuple[str, Answer]:
        sagemaker().update_pipeline(**request(new))
        return physical_id, {}

    def delete(physical_id: str, properties: Answer) -> None:
        sagemaker().delete_pipeline(PipelineName=physical_id, ClientRequestToken=physical_id.ljust(32, "-"))

    provisioners._RESOURCE_HANDLERS["AWS::SageMaker::Pipeline"] = {
        "create": create,
        "update": update,
        "delete": delete,
    }


def carry_scheduled_events() -> None:
    """A schedule's event reaches a bus as "Scheduled Event": give it the target's source, type and input."""
    from ministack.services import eventbridge

    invoke = eventbridge._invoke_target

    def invoke_target(target: Answer, event: Answer, *rest: Any, **options: Any) -> Any:
        parameters = target.get("EventBridgeParameters")
        if parameters is None:
            return invoke(target, event, *rest, **options)
        entry = {
            "EventBusName": target["Arn"],
            "Source": parameters["Source"],
            "DetailType": parameters["DetailType"],
            "Detail": target.get("Input") or "{}",
        }
        return eventbridge._put_events({"Entries": [entry]})

    eventbridge._invoke_target = invoke_target


def emit_as_aws(entry: Answer, *, account_id: str, region: str) -> None:
    """Put an event of an AWS service on the default bus, which PutEvents refuses to customers."""
    from ministack.core.responses import request_scope
    from ministack.services import eventbridge

    with request_scope(account_id, region):
        answer = eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)
    failed = json.loads(answer[2])["FailedEntryCount"]
    assert failed == 0, f"the event was refused: {answer}"
