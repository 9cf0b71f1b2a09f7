"""Predict rows by models as their own inference code does, in an interpreter that has the image's libraries.

    python predict.py < [{"model": FOLDER, "data": FILE}]

Each folder holds what a model.tar.gz held, each file a table as CSV. Prints how many rows each model predicted of
the first five, as a JSON list.
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
    """Return how many rows were read, predicted and answered by the functions that the container calls."""
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
