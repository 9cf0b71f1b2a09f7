"""Run Preprocess on many data sets in one process: prepare_all.py STEPS FOLDER < cases.

FOLDER/<case>/input holds the files of each case. A line of JSON in, {"case", "target", "problem", "split"}, is
answered by a line of JSON out: {"message"} of a failure, or the profile of the data set, with how many different
values each feature has, and the rows that are tested on. Run with the libraries of the image.
"""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

sys.path.insert(0, sys.argv[1])

import pandas as pd

import preprocess
from common import run


def main() -> None:
    for line in sys.stdin:
        case = json.loads(line)
        root = Path(sys.argv[2]) / case["case"]
        places = [
            text for name in ("input", "train", "test", "profile") for text in (f"--{name}", str(root / name))
        ]
        failure = root / "failure"
        arguments = [
            *places,
            "--target",
            case["target"],
            "--problem",
            case["problem"],
            "--split",
            case["split"],
            "--failure-file",
            str(failure),
        ]
        given, sys.argv = sys.argv, ["preprocess.py", *arguments]
        said = io.StringIO()
        try:
            with redirect_stdout(said), redirect_stderr(said):
                run(preprocess.main, failure)
        except SystemExit:
            answer = {"message": failure.read_text(encoding="utf-8")}
        else:
            answer = json.loads((root / "profile/profile.json").read_text(encoding="utf-8"))
            rows = pd.read_pickle(root / "train/train.pkl")
            answer["tested_on"] = pd.read_pickle(root / "test/test.pkl").index.tolist()
            answer["distinct"] = {name: int(count) for name, count in rows.nunique().items()}
        finally:
            sys.argv = given
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
