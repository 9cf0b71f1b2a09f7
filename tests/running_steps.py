"""Run the step scripts as SageMaker runs them: as programs, with the libraries of its image."""

import json
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from local.cloud import REPOSITORY
from local.sagemaker.interpreter import interpreter
from pipeline import publish

PROGRAMS = REPOSITORY / "tests/steps"
STEPS = REPOSITORY / "pipeline/steps"


@dataclass
class Container:
    """The directories of one run's containers."""

    root: Path
    image: Path
    """The socket of the image that runs the steps."""

    said: str = ""
    """What the last step printed, which is its job's log."""

    def preprocess(
        self,
        *files: tuple[str, bytes],
        target: str = "churned",
        problem: str = "auto",
        split: str = "auto",
        checked: int | None = None,
        statistics: Path | None = None,
        drift: str = "",
    ) -> str:
        """Run the first step; returns its failure message, "" when it succeeded."""
        for name, body in files:
            path = self.root / "input" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
        paths = [
            text for name in ("input", "train", "test", "profile") for text in (f"--{name}", str(self.root / name))
        ]
        environment = {} if checked is None else {"INPUT_BYTES": str(checked)}
        asked = ("--target", target, "--problem", problem, "--split", split, f"--drift={drift}")
        before = ("--statistics", str(statistics)) if statistics else ()
        return self._run("preprocess", *paths, *asked, *before, **environment)

    def train(self, algorithm: str = "linear", champion: Path | None = None, **chosen: object) -> str:
        """Run the second step, begun with the model in a folder if there is one."""
        asked = {"algorithm": algorithm, "hyperparameters": chosen, "warm_start": "yes" if champion else "no"}
        environment = {
            **({"SM_CHANNEL_CHAMPION": str(champion)} if champion else {}),
            "SM_HPS": json.dumps(asked),
            "SM_CHANNEL_TRAIN": str(self.root / "train"),
            "SM_MODEL_DIR": str(self.root / "model"),
            "SM_OUTPUT_DIR": str(self.root),
        }
        return self._run("train", **environment)

    def trial(
        self,
        search: dict[str, Any],
        *positions: float,
        algorithm: str = "linear",
        job_name: str = "x-Tune-002-0e830ada",
        **more: object,
    ) -> str:
        """Run the second step as a trial of a tuning, as SageMaker's search starts it."""
        asked = {
            "algorithm": algorithm,
            "hyperparameters": {},
            "search": search,
            "_tuning_objective_metric": "validation",
            **{f"position_{number}": position for number, position in enumerate(positions, start=1)},
            **more,
        }
        environment = {
            "SM_HPS": json.dumps(asked),
            "SM_CHANNEL_TRAIN": str(self.root / "train"),
            "SM_MODEL_DIR": str(self.root / "model"),
            "SM_OUTPUT_DIR": str(self.root),
            "TRAINING_JOB_NAME": job_name,
        }
        return self._run("train", **environment)

    def training(self) -> dict[str, Any]:
        """Return what the last training says of itself."""
        training: dict[str, Any] = json.loads((self.root / "model/training.json").read_text())
        return training

    def evaluate(self, champion: Path | None = None, by: str = "") -> dict[str, Any]:
        """Run the last step, beside the model in a folder if there is one; return its report."""
        with tarfile.open(self.root / "model.tar.gz", "w:gz") as archive:
            for path in (self.root / "model").iterdir():
                archive.add(path, arcname=path.name)
        folders = {
            "model": self.root,
            "test": self.root / "test",
            "profile": self.root / "profile",
            "output": self.root / "out",
            "deliver": self.root / "done",
        }
        beside = ("--champion", str(champion), f"--challenge=before:{by}") if champion else ()
        paths = [text for name, path in folders.items() for text in (f"--{name}", str(path))]
        assert self._run("evaluate", *paths, *beside) == "", self.said
        assert (self.root / "done/model.tar.gz").exists()
        report: dict[str, Any] = json.loads((self.root / "out/evaluation.json").read_text())
        return report

    def _run(self, step: str, *arguments: str, **environment: str) -> str:
        failure = self.root / "failure"
        failure.unlink(missing_ok=True)
        given = [] if step == "train" else ["--failure-file", str(failure)]
        log = self.root / "log"
        log.unlink(missing_ok=True)
        job = {
            "script": str(STEPS / f"{step}.py"),
            "arguments": [*arguments, *given],
            "environment": {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", **environment},
            "directory": str(self.root),
            "log": str(log),
        }
        code = run_in(self.image, job)
        message = failure.read_text() if failure.exists() else ""
        self.said = log.read_text()
        assert (code == 0) == (message == ""), self.said
        return message


PREDICT = """
import json, sys
sys.path.insert(0, sys.argv[1] + "/code")
import inference
rows = inference.input_fn(sys.stdin.buffer.read(), sys.argv[2])
answer = inference.predict_fn(rows, inference.model_fn(sys.argv[1]))
print(json.dumps([inference.output_fn(answer, kind) for kind in ("text/csv", "application/json")]))
"""
"""What the inference container does with a request, in one program."""


@pytest.fixture(scope="session")
def image() -> Iterator[Path]:
    """The local cloud's image: importing scikit-learn anew takes longer than most steps."""
    with tempfile.TemporaryDirectory() as folder:  # a socket's path is short
        socket_path = Path(folder) / "image"
        process = subprocess.Popen([interpreter(), str(REPOSITORY / "local/sagemaker/image.py"), str(socket_path)])
        try:
            limit = time.monotonic() + 60
            while not socket_path.exists():
                assert process.poll() is None, "the image ended"
                assert time.monotonic() < limit, "the image does not start"
                time.sleep(0.05)
            yield socket_path
        finally:
            process.terminate()
            process.wait()


def run_in(image: Path, job: dict[str, Any]) -> int:
    """Run a program in a process of the image; return its exit code."""
    with socket.socket(socket.AF_UNIX) as connection:
        for _ in range(100):
            with suppress(ConnectionRefusedError):  # bound, and not listening yet
                connection.connect(str(image))
                break
            time.sleep(0.05)
        with connection.makefile("rw") as stream:
            print(json.dumps(job), file=stream, flush=True)
            stream.readline()
            return int(json.loads(stream.readline())["exit"])


@pytest.fixture
def container(tmp_path: Path, image: Path) -> Container:
    return Container(tmp_path, image)


Files = dict[str, bytes]
Prepare = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def prepare(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Yield what runs the first step on files, all in one process: importing libraries takes longer than most."""
    folder = tmp_path_factory.mktemp("cases")
    steps = shutil.copytree(STEPS, tmp_path_factory.mktemp("published") / "steps")
    (steps / "libraries.zip").write_bytes(publish.libraries())
    command = [interpreter(), str(PROGRAMS / "prepare_all.py"), str(steps), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdin is not None
        answers = program.stdout
        assert answers is not None
        count = 0

        def prepared(
            files: Files | bytes, target: str = "churned", problem: str = "auto", split: str = "auto"
        ) -> dict[str, Any]:
            nonlocal count
            count += 1
            for name, body in ({"data.csv": files} if isinstance(files, bytes) else files).items():
                path = folder / str(count) / "input" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(body)
            print(
                json.dumps({"case": str(count), "target": target, "problem": problem, "split": split}),
                file=program.stdin,
                flush=True,
            )
            answer: dict[str, Any] = json.loads(answers.readline())
            return answer

        yield prepared
        program.stdin.close()
