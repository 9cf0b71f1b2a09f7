"""Predict rows with the models' own inference code, in an interpreter with the image's libraries.

    python predict.py < [{"model": FOLDER, "data": FILE}]

Each folder contains an extracted model.tar.gz, each file is a table as CSV. Prints how many of the first five
rows each model predicted, as a JSON list.
"""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

ROWS = 5


def main() -> None:
    print(json.dumps([predicted(Path(job["model"]), Path(job["data"])) for job in json.load(sys.stdin)]))


def predicted(model: Path, data: Path) -> int:
    """Return how many rows the functions that the container calls have read, predicted and returned."""
    inference = _load(model / "code/inference.py")
    head = b"".join(data.read_bytes().splitlines(keepends=True)[: ROWS + 1])
    rows = inference.input_fn(head, "text/csv")
    body, content_type = inference.output_fn(
        inference.predict_fn(rows, inference.model_fn(str(model))), "application/json"
    )
    assert content_type == "application/json"
    return len(json.loads(body)["predictions"])


def _load(path: Path) -> Any:
    specification = importlib.util.spec_from_file_location("inference", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
