"""Predict rows with the models' own inference code, in an interpreter with the image's libraries.

    python predict.py < [{"model": FOLDER, "data": FILE, "rows": COUNT}]

Each folder contains an extracted model.tar.gz, each file is a table as CSV. Prints what each model predicted of
the first rows, as a JSON list of lists.
"""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    jobs = json.load(sys.stdin)
    print(json.dumps([predicted(Path(job["model"]), Path(job["data"]), job["rows"]) for job in jobs]))


def predicted(model: Path, data: Path, count: int) -> list[Any]:
    """Return what the functions that the container calls have read, predicted and returned."""
    inference = _load(model / "code/inference.py")
    head = b"".join(data.read_bytes().splitlines(keepends=True)[: count + 1])
    rows = inference.input_fn(head, "text/csv")
    body, content_type = inference.output_fn(
        inference.predict_fn(rows, inference.model_fn(str(model))), "application/json"
    )
    assert content_type == "application/json"
    predictions: list[Any] = json.loads(body)["predictions"]
    return predictions


def _load(path: Path) -> Any:
    specification = importlib.util.spec_from_file_location("inference", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
