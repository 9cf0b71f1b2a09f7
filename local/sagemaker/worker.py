"""A model server: one loaded model, whose own inference code answers requests.

    python worker.py MODEL_FOLDER SOCKET

Runs in a process of its own, as the multi-model server of the scikit-learn container does for each model. It loads
the model once, and then answers on the socket:

    request  {"content_type", "accept", "bytes"} as one line of JSON, then the body
    answer   {"status", "content_type", "bytes"} as one line of JSON, then the body

The container's inference toolkit answers an error of the inference code with its status 500 and its message, and a
content type that the code does not take with 415.
"""

import importlib.util
import json
import os
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any


def main() -> None:
    folder, path = Path(sys.argv[1]), sys.argv[2]
    code = _load(folder / "code/inference.py")
    model = code.model_fn(str(folder))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{path}.new")
        listener.listen(16)
        os.rename(f"{path}.new", path)  # who finds the socket can connect to it
        while True:
            connection, _ = listener.accept()
            with suppress(OSError, ValueError), connection, connection.makefile("rwb") as stream:
                answer(stream, code, model)  # nobody may be waiting for it any more


def answer(stream: Any, code: Any, model: Any) -> None:
    request = json.loads(stream.readline())
    body = stream.read(request["bytes"])
    status, content_type = 200, "application/json"
    try:
        rows = code.input_fn(body, request["content_type"])
        output, content_type = code.output_fn(code.predict_fn(rows, model), request["accept"])
        answered = output.encode()
    except Exception as error:
        traceback.print_exc()
        status = 415 if str(error).startswith("unsupported") else 500
        answered = json.dumps({"error": str(error)}).encode()
    stream.write(json.dumps({"status": status, "content_type": content_type, "bytes": len(answered)}).encode())
    stream.write(b"\n" + answered)
    stream.flush()


def _load(path: Path) -> Any:
    sys.path.insert(0, str(path.parent))
    specification = importlib.util.spec_from_file_location("inference", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
