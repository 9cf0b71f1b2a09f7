"""Champion: let the archive of an earlier model answer rows, with the inference code that is packed with it.

A program of its own, so that the code in the archive replaces none of the scripts beside this one. It prints
nothing of the rows: its answer goes to a file.
"""

import argparse
import json
import sys
import tarfile
import tempfile
import types
from pathlib import Path
from typing import Any

from common import json_text, unpack

UNPACKED_BYTES_MAX = 4 * 1024**3
"""Of a model: a larger one is taken for a file that only looks small while it is packed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("archive", "rows", "answer"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    try:
        answer = answered(arguments.archive, json.loads(arguments.rows.read_text(encoding="utf-8"))["rows"])
    except Exception as error:  # whatever the archive holds, and whatever its code does
        print(type(error).__name__)
        answer = {"error": "unusable"}
    arguments.answer.write_text(json_text(answer), encoding="utf-8")


def answered(archive: Path, rows: str) -> dict[str, Any]:
    """Return the predictions for rows, as JSON lines, as a caller of the model would get them; or an error."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(archive) as packed:
            if sum(member.size for member in packed) > UNPACKED_BYTES_MAX:
                return {"error": "large"}
            unpack(packed, Path(folder))
        schema = json.loads((Path(folder) / "schema.json").read_text(encoding="utf-8"))
        first = json.loads(rows.partition("\n")[0])
        if any(each["name"] not in first for each in schema["columns"]):
            return {"error": "column"}
        inference = _packed_code(Path(folder) / "code")
        request = inference.input_fn(rows, "application/jsonlines")
        answer: dict[str, Any] = inference.predict_fn(request, inference.model_fn(folder))
        return {name: answer[name] for name in ("predictions", "classes", "probabilities") if name in answer}


def _packed_code(folder: Path) -> Any:
    """Return the archive's module `inference`; what it imports comes from the archive too."""
    here = str(Path(__file__).parent)
    sys.path[:] = [str(folder), *(path for path in sys.path if path != here)]
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) if isinstance(module, types.ModuleType) else None
        if file and Path(file).parent == Path(here) and name != "__main__":
            del sys.modules[name]
    import inference

    return inference


if __name__ == "__main__":
    main()
