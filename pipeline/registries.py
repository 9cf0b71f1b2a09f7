"""Write the registries of SageMaker's scikit-learn image into template.yaml, as the SageMaker SDK lists them.

Run by `make pipeline`, in the environment that has the SDK. The template's mapping `SageMakerImages` and its rule
`RegionHasTheImages` are delimited by marker comments and list the same Regions: AWS's commercial ones. Nothing has
been checked for the others (China, GovCloud), where both images must be named at deployment.
"""

import argparse
import difflib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import sagemaker.core

TEMPLATE = Path(__file__).parents[1] / "template.yaml"
VERSION = "1.9-0"
"""Of the image, as template.yaml names its tag."""
OTHER_PARTITIONS = re.compile(r"(cn|us-gov|us-iso\w*|eu-isoe|eusc)-")
MAPPING = ("  # registries: begin (written by pipeline/registries.py)\n", "  # registries: end\n")
RULE = ("          # regions: begin (written by pipeline/registries.py)\n", "          # regions: end\n")


def registries() -> dict[str, str]:
    """Return Region → account of the image's registry, by the SDK's table, in the order of the Regions' names."""
    (folder,) = sagemaker.core.__path__
    table = json.loads((Path(folder) / "image_uri_config" / "sklearn.json").read_text(encoding="utf-8"))
    accounts: Mapping[str, str] = table["training"]["versions"][VERSION]["registries"]
    return {region: accounts[region] for region in sorted(accounts) if not OTHER_PARTITIONS.match(region)}


def written(template: str, accounts: Mapping[str, str]) -> str:
    """Return the template with these registries; raises ValueError when a marker is missing."""
    mapping = "".join(f"    {region}: {{Account: '{account}'}}\n" for region, account in accounts.items())
    rule = "".join(f"          - {region}\n" for region in accounts)
    template = _between(template, MAPPING, f"  SageMakerImages:\n{mapping}")
    return _between(template, RULE, rule)


def _between(text: str, marks: tuple[str, str], inner: str) -> str:
    begin, end = (text.find(mark) for mark in marks)
    if begin < 0 or end < begin:
        raise ValueError(f"template.yaml lacks the marker comments {marks[0].strip()!r} and {marks[1].strip()!r}")
    return text[: begin + len(marks[0])] + inner + text[end:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="check whether template.yaml is up to date")
    arguments = parser.parse_args()
    committed = TEMPLATE.read_text(encoding="utf-8")
    text = written(committed, registries())
    if not arguments.check:
        TEMPLATE.write_text(text, encoding="utf-8")
        print(f"wrote {len(registries())} registries into {TEMPLATE.name}")
        return 0
    drift = list(difflib.unified_diff(committed.splitlines(), text.splitlines(), "committed", "SDK", lineterm=""))
    print("\n".join(drift) or f"{TEMPLATE.name} has the registries of the SageMaker SDK")
    return 1 if drift else 0


if __name__ == "__main__":
    sys.exit(main())
