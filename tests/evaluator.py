"""The policies of the template and of tenants, expanded, and an evaluator for them.

The evaluator is that of the local cloud (MiniStack's, with variables replaced), used here without a cloud: with
every condition key that AWS would provide, which the local cloud does not.
"""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from ministack.core import iam_evaluator

from local import patches
from local.cloud import REPOSITORY
from local.deploy import load_template
from testing.service import ACCOUNT
from trainyard.adapters.aws.deployment_names import DeploymentNames

STACK = "yard"
DATA_KEY = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/data"
POOL = f"{STACK}-{ACCOUNT}-pool"
CODE = f"{STACK}-{ACCOUNT}-code"
ROLES = f"arn:aws:iam::{ACCOUNT}:role/trainyard/{STACK}/tenants/"
POOLED_ROLES = f"{ROLES}pool/"
ACCESS_ROLE = f"arn:aws:iam::{ACCOUNT}:role/trainyard/{STACK}/{STACK}-TenantAccessRole"
Document = dict[str, Any]

DEPLOYMENT = DeploymentNames(
    stack=STACK,
    stage="dev",
    partition="aws",
    account_id=ACCOUNT,
    region="us-east-1",
    boundary_arn=f"arn:aws:iam::{ACCOUNT}:policy/trainyard/{STACK}/boundary",
    tenant_roles=f"{ROLES}*",
    code_bucket=CODE,
    data_key_arn=DATA_KEY,
    result_readers=(),
    result_movers=(),
    event_bus_name=STACK,
    schedule_group=f"{STACK}-retraining",
    schedule_role_arn=f"arn:aws:iam::{ACCOUNT}:role/schedules",
    retain_data=False,
)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call as a policy sees it."""

    principal: str
    """ARN of the role, or of another account's root."""
    action: str
    resource: str
    keys: dict[str, Any] = field(default_factory=dict)
    """Condition keys, as AWS names them."""
    tags: dict[str, str] = field(default_factory=dict)
    """Of the principal."""


def decision(call: Call, document: Document, *, resource_policy: bool = False) -> str:
    """Return "Allow", "Deny" or "ImplicitDeny": what one document by itself says of a call."""
    mended()
    context = iam_evaluator.EvalContext(
        principal_arn=call.principal,
        principal_type="AssumedRole",
        principal_account=call.principal.split(":")[4],
        action=call.action,
        resource_arn=call.resource,
        region="us-east-1",
        secure_transport=True,
        service_context={name.lower(): value for name, value in call.keys.items()},
        principal_keys={f"aws:principaltag/{name}".lower(): value for name, value in call.tags.items()},
    )
    if resource_policy:
        return str(iam_evaluator.evaluate_resource_policy(document, context).decision)
    return str(iam_evaluator.evaluate(context, [iam_evaluator.parse_policy_document(document)]).decision)


@cache
def mended() -> None:
    patches.put_variables_in_place()


def template(**parameters: str) -> "Written":
    return Written(load_template(REPOSITORY / "template.yaml"), parameters)


class Written:
    """The template's policies with names in the place of references."""

    def __init__(self, source: Document, parameters: dict[str, str]) -> None:
        self._source = source
        defaults = {name: p.get("Default", "") for name, p in source["Parameters"].items()}
        self._parameters = defaults | parameters

    def policy(self, name: str) -> Document:
        """Return the policy of a role, a managed policy, a bucket policy, or a function, by its logical name."""
        properties = self._source["Resources"][name]["Properties"]
        if "PolicyDocument" in properties:
            return dict(self._value(properties["PolicyDocument"]))
        documents = [self.policy(shared) for shared in self.managed(name)] + [self.inline(name)]
        return {"Version": "2012-10-17", "Statement": [s for document in documents for s in document["Statement"]]}

    def managed(self, name: str) -> list[str]:
        """Return the logical names of the managed policies of a role or a function."""
        properties = self._source["Resources"][name]["Properties"]
        shared = [p["Ref"] for p in properties.get("Policies", []) if isinstance(p, dict) and "Ref" in p]
        return shared + [arn["Ref"] for arn in properties.get("ManagedPolicyArns", [])]

    def inline(self, name: str) -> Document:
        """Return the inline policies of a role or a function, as one."""
        policies = self._source["Resources"][name]["Properties"].get("Policies", [])
        documents = [p.get("PolicyDocument", p) for p in policies if "Ref" not in p]
        values = [self._value(document) for document in documents]
        statements = [s for document in values if isinstance(document, dict) for s in document["Statement"]]
        return {"Version": "2012-10-17", "Statement": statements}

    def trust(self, name: str) -> Document:
        """Return the trust policy of a role, by its logical name."""
        return dict(self._value(self._source["Resources"][name]["Properties"]["AssumeRolePolicyDocument"]))

    def functions(self) -> list[str]:
        kinds = {name: r["Type"] for name, r in self._source["Resources"].items() if "Type" in r}
        return [name for name, kind in kinds.items() if kind == "AWS::Serverless::Function"]

    def _value(self, node: Any) -> Any:
        if isinstance(node, list):
            values = [self._value(one) for one in node]
            return [value for value in values if value is not None]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((name, argument),) = node.items()
            if name == "Ref":
                return self._ref(argument)
            if name == "Fn::GetAtt":
                return self._attribute(argument[0])
            if name == "Fn::Sub":
                return self._substituted(argument)
            if name == "Fn::If":
                return self._value(argument[1] if self._holds(argument[0]) else argument[2])
            if name == "Fn::Split":
                return self._value(argument[1]).split(argument[0])
        return {name: self._value(value) for name, value in node.items()}

    def _holds(self, condition: str) -> bool:
        parameter = {
            "HasVpc": "SubnetIds",
            "HasMetering": "MarketplaceDimension",
            "HasDirectInvocation": "DirectInvocation",
            "HasApprovalLinks": "ApprovalLinks",
            "HasHttpApi": "HttpApi",
            "HasUserPool": "HttpApi",  # unless there is another issuer
        }[condition]
        return self._parameters[parameter] not in ("", "false")

    def _ref(self, name: str) -> Any:
        pseudo = {
            "AWS::NoValue": None,
            "AWS::AccountId": ACCOUNT,
            "AWS::Partition": "aws",
            "AWS::Region": "us-east-1",
            "AWS::StackName": STACK,
        }
        if name in pseudo:
            return pseudo[name]
        if name in self._parameters:
            value = self._parameters[name]
            kind = self._source["Parameters"][name]["Type"]
            return value.split(",") if kind == "CommaDelimitedList" else value
        return f"{STACK}-{name}"

    def _attribute(self, name: str) -> str:
        """Return a made-up ARN; a true one where policies compare it."""
        known = {
            "DataKey": DATA_KEY,
            "PoolBucket": f"arn:aws:s3:::{POOL}",
            "ServingBucket": f"arn:aws:s3:::{STACK}-{ACCOUNT}-serving",
            "CodeBucket": f"arn:aws:s3:::{CODE}",
            "TenantAccessRole": ACCESS_ROLE,
        }
        return known.get(name, f"arn:aws:any:us-east-1:{ACCOUNT}:{name}")

    def _substituted(self, text: str) -> str:
        for name in ("DataKey", "PoolBucket", "CodeBucket"):
            text = text.replace(f"${{{name}.Arn}}", self._attribute(name))
        for name in ("AWS::AccountId", "AWS::Partition", "AWS::Region", "AWS::StackName", "RetrainingSchedules"):
            text = text.replace(f"${{{name}}}", str(self._ref(name)))
        for name in self._source["Resources"]:
            text = text.replace(f"${{{name}.Arn}}", self._attribute(name))
        return text.replace("${!", "${")
