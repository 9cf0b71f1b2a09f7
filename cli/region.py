"""The account and Region of a deployment: printed before it, and the same for every tool.

    python -m cli.region STACK

Prints only the Region on standard output, for make; the account and the identity go to standard error. The AWS SDK
for Python reads AWS_DEFAULT_REGION and a profile's region, other AWS tools AWS_REGION: if they differed, one tool
would deploy to one Region and another would look for the stack elsewhere.
"""

import os
import sys
from collections.abc import MutableMapping

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from trainyard.domain.errors import Refused


def settle_region(environment: MutableMapping[str, str] = os.environ) -> str:
    """Return the Region, and set it in the environment for every client.

    Raises Refused when none is set, or two different ones are.
    """
    named = {name: environment[name] for name in ("AWS_REGION", "AWS_DEFAULT_REGION") if environment.get(name)}
    if len(set(named.values())) > 1:
        sources = " and ".join(f"{name}={value}" for name, value in named.items())
        raise Refused(f"two Regions are set, {sources}: unset one of them")
    region = next(iter(named.values()), None) or boto3.session.Session().region_name
    if not region:
        raise Refused(
            "no Region is set: export AWS_REGION, for example AWS_REGION=eu-west-1, or set the profile's"
        )
    environment["AWS_REGION"] = environment["AWS_DEFAULT_REGION"] = region
    return str(region)


def main(stack: str) -> int:
    try:
        region = settle_region()
        identity = boto3.client("sts").get_caller_identity()
    except Refused as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return 1
    except (ClientError, BotoCoreError) as error:
        print(f"error: the account is unknown: check the credentials ({error})", file=sys.stderr)
        return 1
    print(f"stack {stack}: account {identity['Account']}, Region {region}, as {identity['Arn']}", file=sys.stderr)
    print(region)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
