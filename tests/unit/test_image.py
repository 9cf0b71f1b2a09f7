"""The local cloud's image: its processes end with whoever asked for them."""

import json
import os
import socket
import time
from pathlib import Path


def test_a_process_ends_when_nobody_waits_for_it_any_more(tmp_path: Path, image: Path) -> None:
    script = tmp_path / "serve.py"
    script.write_text("import time\nwhile True:\n    time.sleep(1)\n", encoding="utf-8")
    job = {"script": str(script), "arguments": [], "environment": {}, "directory": str(tmp_path)}
    job["log"] = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(image))
        with connection.makefile("rw") as stream:
            print(json.dumps(job), file=stream, flush=True)
            process = int(json.loads(stream.readline())["pid"])
        os.kill(process, 0)
    limit = time.monotonic() + 10
    while Path(f"/proc/{process}").exists():
        assert time.monotonic() < limit, "it runs on"
        time.sleep(0.05)
