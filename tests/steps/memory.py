"""Measure the peak memory of the steps against the size of the file: memory.py STEPS MB...

Run with the libraries of the steps' image. Prints a line for each shape of file, size and step: the peak in MB,
its ratio to the file's size without what the libraries take, and the seconds; then the largest file for which
instances have the memory. Fails if a step takes more than the steps count on (common.MEMORY_PER_BYTE).
"""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

STEPS = Path(sys.argv[1]).resolve()
sys.path.insert(0, str(STEPS))

from common import LIBRARIES_BYTES, MEMORY_PER_BYTE  # noqa: E402 - from the folder that is given

GIB = 1024**3
NAMES = ("input", "train", "test", "profile")


def categories(g: np.random.Generator, rows: int) -> pd.DataFrame:
    """Twelve columns of sixty texts, and five of numbers."""
    texts = np.array([f"v{n:02d}" for n in range(60)])
    return pd.DataFrame(
        {f"t{n}": texts[g.integers(0, 60, rows)] for n in range(12)}
        | {f"n{n}": g.normal(size=rows).round(5) for n in range(5)}
    )


def numbers(g: np.random.Generator, rows: int) -> pd.DataFrame:
    """Twenty columns of numbers."""
    return pd.DataFrame({f"n{n}": g.normal(size=rows).round(5) for n in range(20)})


def many_texts(g: np.random.Generator, rows: int) -> pd.DataFrame:
    """Four columns with a different text in one of three rows, and one of numbers."""
    return pd.DataFrame(
        {f"t{n}": [f"street {value}" for value in g.integers(0, rows // 3, rows)] for n in range(4)}
        | {"n0": g.normal(size=rows).round(5)}
    )


BYTES_PER_ROW = {categories: 93, numbers: 165, many_texts: 65}


def peak_of(script: str, *arguments: str, **environment: str) -> tuple[int, float]:
    """Run a program; return the bytes that it had at most, and its seconds."""
    started = time.monotonic()
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]; sys.path.insert(0, sys.argv[0].rpartition('/')[0])\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "print('PEAK', next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    )
    command = [sys.executable, "-c", code, script, *arguments]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return int(done.stdout.rpartition("PEAK ")[2]) * 1024, time.monotonic() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "imports.py"
        empty.write_text(
            f"import sys; sys.path.insert(0, {str(STEPS)!r}); import preprocess, train, evaluate\n",
            encoding="utf-8",
        )
        libraries, _ = peak_of(str(empty))
    print(f"libraries alone: {libraries / 1e6:.0f} MB")
    largest = 0.0
    for size in map(int, sys.argv[2:]):
        for shape, per_row in BYTES_PER_ROW.items():
            with tempfile.TemporaryDirectory() as folder:
                table = shape(np.random.default_rng(1), size * 10**6 // per_row)
                largest = max(largest, measure(Path(folder), shape.__name__, table, libraries))
    print(
        f"\nat most {LIBRARIES_BYTES / 1e6:.0f} MB and {largest:.1f} bytes for each byte of the file; "
        f"the steps count on {MEMORY_PER_BYTE}"
    )
    for memory in (4, 8, 16, 32, 64):
        megabytes = (memory * GIB - LIBRARIES_BYTES) / MEMORY_PER_BYTE / 1e6
        print(f"an instance of {memory:2} GiB: files of {megabytes:6,.0f} MB")
    sys.exit(1 if largest > MEMORY_PER_BYTE or libraries > LIBRARIES_BYTES else 0)


def measure(root: Path, shape: str, table: pd.DataFrame, libraries: int) -> float:
    """Print what each step takes; return the largest ratio of its memory beyond LIBRARIES_BYTES to the file."""
    (root / "input").mkdir()
    file = root / "input/data.csv"
    noise = np.random.default_rng(2).normal(size=len(table))
    table.assign(y=np.where(table["n0"] + noise > 0, "yes", "no")).to_csv(file, index=False)
    del table
    size = file.stat().st_size
    places = [text for name in NAMES for text in (f"--{name}", str(root / name))]
    runs = {
        "preprocess": peak_of(
            str(STEPS / "preprocess.py"), *places, "--target", "y", "--failure-file", str(root / "f")
        )
    }
    for algorithm in ("gradient-boosting", "linear"):
        job = {
            "SM_HPS": json.dumps({"algorithm": algorithm}),
            "SM_CHANNEL_TRAIN": str(root / "train"),
            "SM_MODEL_DIR": str(root / "model"),
            "SM_OUTPUT_DIR": str(root),
        }
        runs[f"train, {algorithm}"] = peak_of(str(STEPS / "train.py"), **job)
        with tarfile.open(root / "model.tar.gz", "w:gz") as archive:
            for path in (root / "model").iterdir():
                archive.add(path, arcname=path.name)
        read = {
            "model": root,
            "test": root / "test",
            "profile": root / "profile",
            "output": root,
            "deliver": root / "d",
        }
        places = [text for name, path in read.items() for text in (f"--{name}", str(path))]
        runs[f"evaluate, {algorithm}"] = peak_of(
            str(STEPS / "evaluate.py"), *places, "--failure-file", str(root / "f")
        )
    for step, (peak, seconds) in runs.items():
        ratio, name = (peak - libraries) / size, f"{shape:12} {size / 1e6:6.0f} MB  {step:28}"
        print(f"{name} {peak / 1e6:6.0f} MB  {ratio:5.1f} × the file  {seconds:5.0f} s", flush=True)
    return max((peak - LIBRARIES_BYTES) / size for peak, _ in runs.values())


if __name__ == "__main__":
    main()
