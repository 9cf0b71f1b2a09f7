"""`algorithm test` runs the real steps on this machine; `algorithm register` checks scripts first."""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli import rehearsal
from cli.algorithm_files import check_is_trainable, doubts, own_scripts, shipped_scripts
from cli.app import main
from trainyard.domain.algorithms import BUILT_IN, Algorithm, Hyperparameter, Kind
from trainyard.domain.errors import Refused

FILE = """
name: gradient-boosting
hyperparameters:
  max_iter: {kind: integer, default: 20, minimum: 1, maximum: 50}
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pick = random.Random(1)
    rows = [(pick.randint(18, 80), pick.choice("abc")) for _ in range(300)]
    path = tmp_path_factory.mktemp("data") / "churn.csv"
    path.write_text("age,plan,churned\n" + "".join(f"{age},{plan},{int(age > 50)}\n" for age, plan in rows))
    return path


@pytest.fixture(scope="module", autouse=True)
def _one_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One process stands for the image in all tests of a worker, since it takes a second to start."""
    with rehearsal._image(tmp_path_factory.mktemp("image") / "image.sock") as running:

        @contextmanager
        def image(_: Path) -> Iterator[Path]:
            yield running

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rehearsal, "_image", image)
            yield


def rehearse(tmp_path: Path, table: Path, *options: str, file: str = FILE) -> int:
    (path := tmp_path / "algorithm.yaml").write_text(file)
    return main(["algorithm", "test", str(path), "--data", str(table), "--target", "churned", "--json", *options])


def test_the_steps_run_as_in_the_pipeline_and_leave_a_model_and_its_card(
    tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = rehearse(tmp_path, table, "--output", str(tmp_path / "out"), "--hyperparameter", "max_iter=7")
    report = json.loads(capsys.readouterr().out)
    assert code == 0, report
    assert [step["step"] for step in report["steps"]] == ["Preprocess", "Train", "Evaluate"]
    assert report["quality"]["metric"] == "roc_auc"
    card = json.loads((tmp_path / "out/models/card.json").read_text())
    assert "max_iter" in json.dumps(card), "the hyperparameter reached the script"
    assert (tmp_path / "out/models/model.tar.gz").stat().st_size > 0
    assert (tmp_path / "out/logs/Train.log").exists()


def test_a_model_below_what_the_tier_asks_for_is_told_as_a_run_would_tell_it(
    tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = table.read_text().replace(",1\n", ",0\n", 60)
    (poor := tmp_path / "poor.csv").write_text(noise)
    assert rehearse(tmp_path, poor, "--quality-min", "1") == 4
    last = json.loads(capsys.readouterr().out)["steps"][-1]
    assert last["step"] == "QualityTooLow"
    assert "the model was not registered" in last["reason"]


def test_a_script_that_crashes_is_shown_with_its_last_error_and_paths_of_the_container(
    tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (scripts := tmp_path / "scripts").mkdir()
    (scripts / "train.py").write_text("import lightgbn\n")
    assert rehearse(tmp_path, table, "--scripts", str(scripts)) == 4
    last = json.loads(capsys.readouterr().out)["steps"][-1]
    assert (last["step"], last["reason"]) == ("Train", "ModuleNotFoundError: No module named 'lightgbn'")
    assert '  File "/opt/ml/code/train.py", line 1, in <module>' in last["printed"]


def test_data_that_cannot_be_trained_on_ends_in_the_first_step(
    tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (other := tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert rehearse(tmp_path, other) == 4
    (only,) = json.loads(capsys.readouterr().out)["steps"]
    assert only["step"] == "Preprocess"
    assert "churned" in only["reason"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--data", "nowhere.csv"), "there is no such file"),
        (("--scripts", "nowhere"), "contains no *.py files"),
        (("--hyperparameter", "max_iter=70"), "70 is out of bounds; it must be a whole number from 1 to 50"),
        (("--hyperparameter", "depth=7"), "has no hyperparameter 'depth'"),
    ],
)
def test_wrong_input_is_refused_with_what_to_change(
    tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
) -> None:
    assert rehearse(tmp_path, table, *options) == 1
    assert said in capsys.readouterr().err


def test_an_algorithm_without_a_script_is_refused(
    tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rehearse(tmp_path, table, file="name: neighbours\n") == 1
    assert "neighbours has no script that trains it" in capsys.readouterr().err
    for algorithm in (
        *BUILT_IN,
        Algorithm(name="own", training_image_uri="1.dkr/x"),
        Algorithm(name="x", code_uri="s3://c"),
    ):
        check_is_trainable(algorithm, {})
    check_is_trainable(Algorithm(name="own"), {"train.py": b""})
    for scripts in ({"preprocess.py": b""}, {}):
        with pytest.raises(Refused, match="no script that trains it"):
            check_is_trainable(Algorithm(name="own", code_uri="s3://c" if scripts else None), scripts)


@pytest.mark.parametrize(
    "written", ["", "accuracy = 0.9", '{"accuracy": 0.9}', '{"quality": {"value": null}}', "[1]"]
)
def test_an_evaluation_that_cannot_be_used_fails_the_run_with_what_it_lacks(
    tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str], written: str
) -> None:
    (scripts := tmp_path / "scripts").mkdir()
    (scripts / "evaluate.py").write_text(
        "import sys\nfolder = sys.argv[sys.argv.index('--output') + 1]\n"
        + (f"open(folder + '/evaluation.json', 'w').write({written!r})\n" if written else "")
    )
    assert rehearse(tmp_path, table, "--scripts", str(scripts)) == 4
    last = json.loads(capsys.readouterr().out)["steps"][-1]
    assert (last["step"], last["reason"][:33]) == ("QualityIsGoodEnough", "Evaluate wrote no evaluation.json")


def test_what_intake_would_refuse_is_refused(
    tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (other := tmp_path / "churn.xlsx").write_bytes(table.read_bytes())
    assert rehearse(tmp_path, other, file=FILE + "suffixes: [.csv]\n") == 1
    assert "gradient-boosting reads objects that end in .csv" in capsys.readouterr().err
    image = "name: own\ntraining_image: 123456789012.dkr.ecr.us-east-1.amazonaws.com/knn:3\n"
    assert rehearse(tmp_path, table, file=image) == 1
    assert "own is trained by its own image, which is not run here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"), [("def f(:\n", "train.py, line 1 does not compile"), ("x = 1\0\n", "null")]
)
def test_scripts_that_do_not_compile_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "train.py").write_text(text)
    with pytest.raises(Refused, match=said):
        own_scripts(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("train.py", "parser.add_argument('--algorithm')\nparser.parse_args()\n", "to take --hyperparameters,"),
        ("evaluate.py", "parser.add_argument('--model')\nparser.parse_args()\n", "to take --test, --profile"),
        ("preprocess.py", "parser.parse_args()\n", "--target, --split, --problem"),
    ],
)
def test_arguments_that_a_script_may_refuse_are_noted(name: str, text: str, said: str) -> None:
    (doubt,) = doubts(Algorithm(name="own"), {name: text.encode()})
    assert said in doubt
    helper = b"for option in OPTIONS: parser.add_argument(f'--{option}')"
    assert doubts(Algorithm(name="own"), {"train.py": b"print(1)", "helper.py": helper}) == []


@pytest.mark.parametrize(
    "text",
    [
        "parser.add_argument('--algorithm')\nparser.parse_known_args()\n",
        "for name in NAMES:\n    parser.add_argument(f'--{name}')\nparser.parse_args()\n",
        "print('takes none')\n",
        "parser.add_argument('--algorithm')\nparser.add_argument('--hyperparameters')\nparser.parse_args()\n",
    ],
)
def test_scripts_that_take_what_the_pipeline_passes_are_not_doubted(tmp_path: Path, text: str) -> None:
    (tmp_path / "train.py").write_text(text)
    own = own_scripts(tmp_path)
    assert own == {"train.py": text.encode()}
    assert doubts(Algorithm(name="own"), own) == []


def test_the_shipped_scripts_pass_their_own_check(tmp_path: Path) -> None:
    for name, body in shipped_scripts().items():
        (tmp_path / name).write_bytes(body)
    assert doubts(Algorithm(name="own"), own_scripts(tmp_path)) == []


def test_a_hyperparameter_that_no_script_mentions_is_doubted() -> None:
    algorithm = Algorithm(name="own", hyperparameters={"depth": Hyperparameter(kind=Kind.INTEGER)})
    (doubt,) = doubts(algorithm, {"train.py": b"print('width')"})
    assert "no script mentions depth" in doubt
    assert doubts(algorithm, {"train.py": b"chosen['depth']"}) == []
    assert doubts(algorithm, {"features.py": b""}) == [], "the shipped train.py reads them"
