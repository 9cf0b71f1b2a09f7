"""The container image: an interpreter with the libraries loaded, which forks a process for each job.

Importing scikit-learn takes longer than most of the demo's trainings; a real container pays that once per
instance, this one once per image. A job is a process of its own, with its own directory and environment.

    python image.py SOCKET                        serves until it is terminated
    request  {"script", "arguments", "environment", "directory", "log"}   one JSON line
    answer   {"pid": n}, and at the end {"exit": code}; a killed job just closes the connection
"""

import json
import os
import runpy
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any


def serve(path: str) -> None:
    # Read when the libraries are loaded. Jobs share this machine's cores; threads that wait for each other would
    # take them from all.
    os.environ["OMP_NUM_THREADS"] = "1"
    import joblib  # noqa: F401 - loaded for the jobs
    import pandas  # noqa: F401
    import sklearn.compose
    import sklearn.ensemble
    import sklearn.impute
    import sklearn.linear_model
    import sklearn.metrics
    import sklearn.model_selection
    import sklearn.pipeline  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                os._exit(serve_job(connection))
            connection.close()


def serve_job(connection: socket.socket) -> int:
    """Run the job that a connection asks for, in this process; returns its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.setsid()
    with connection.makefile("rw") as stream:
        job = json.loads(stream.readline())
        print(json.dumps({"pid": os.getpid()}), file=stream, flush=True)
        threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
        code = run(job)
        print(json.dumps({"exit": code}), file=stream, flush=True)
    return code


def _end_with(connection: socket.socket) -> None:
    """End this process when nobody waits for it any more: whoever asked for it is gone."""
    if not connection.recv(1):
        os.killpg(0, signal.SIGKILL)


def _of_script(error: BaseException, script: Path) -> TracebackType | None:
    """Return an error's traceback from the script on, as `python train.py` prints it."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != str(script):
        frames = frames.tb_next
    return frames


def run(job: dict[str, Any]) -> int:
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr] # as PYTHONUNBUFFERED does in the image
    os.chdir(job["directory"])
    os.environ.clear()
    os.environ.update(job["environment"])
    script = Path(job["script"])
    sys.argv = [str(script), *job["arguments"]]
    sys.path[0] = str(script.parent)
    code = 0
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as error:  # a job may fail with any error; its exit code and its log show it
        traceback.print_exception(type(error), error, _of_script(error, script))
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    serve(sys.argv[1])
