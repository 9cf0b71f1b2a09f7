"""Check files without training on them: what would be read, as what, and what is doubtful about it.

Prints one line of JSON: what Preprocess would write to profile.json, with the columns; or {"refused": why}.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from common import DataError
from preprocess import prepare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True)
    parser.add_argument("--problem", choices=("auto", "classification", "regression"), default="auto")
    parser.add_argument("--split", default="auto")
    parser.add_argument("files", type=Path, nargs="+")
    arguments = parser.parse_args()
    try:
        answer = check(arguments.files, arguments.target, arguments.problem, arguments.split)
    except DataError as error:
        answer = {"refused": str(error)}
    except Exception as error:
        answer = {"refused": f"unexpected {type(error).__name__}: please report it"}
    print(json.dumps(answer))


def check(files: list[Path], target: str, problem: str, split: str) -> dict[str, Any]:
    """Return what a run would find out about the files before it trains; raises DataError."""
    prepared = prepare(files, target, problem, split)
    columns = [
        {"name": column["name"], "kind": column["kind"], "how": _how(column)}
        for column in prepared.schema["columns"]
    ]
    return prepared.summary | {"columns": columns}


def _how(column: dict[str, Any]) -> str:
    """Return what was found out about the values of a column, beside their kind; none of the values."""
    if column["kind"] == "date":
        return str(column["date_format"])
    if column["kind"] == "category":
        return f"{len(column['categories']):,} texts"
    style = column["style"]
    return " ".join(
        [*(["decimal comma"] if style["decimal"] == "," else []), *(["with a unit"] if style["unit"] else [])]
    )


if __name__ == "__main__":
    main()
