"""The causes of failures, by SageMaker's messages that are documented or were recorded in real accounts."""

import json
from pathlib import Path

import pytest

from trainyard.domain.failures import (
    FailureCause,
    cause_of,
    error_line,
    is_out_of_memory,
    kind_of_reason,
    says_nothing,
    without_trailer,
)

TRAILER = (
    "Retry not appropriate on execution of step with PipelineExecutionArn "
    "arn:aws:sagemaker:eu-west-1:999999999999:pipeline/p/execution/x and StepId Train."
)
NO_POLICY = "No retry policy configured for the exception type {}."


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ("CapacityError: Unable to provision requested ML compute capacity. Please retry.", FailureCause.CAPACITY),
        ("ClientError: Unable to provision requested ML compute capacity.", FailureCause.CAPACITY),
        ("InternalServerError: We encountered an internal error. Please try again.", FailureCause.INTERNAL),
        (
            "ClientError: Failed to invoke sagemaker:CreateTrainingJob. Error Details: Rate exceeded",
            FailureCause.THROTTLING,
        ),
        ("ResourceLimitExceeded: The account-level service limit is 0", FailureCause.RESOURCE_LIMIT),
        (f"Something new. {TRAILER} {NO_POLICY.format('SAGEMAKER_CAPACITY_ERROR')}", FailureCause.CAPACITY),
        (f"Something new.\n{TRAILER} {NO_POLICY.format('SAGEMAKER_RESOURCE_LIMIT')}", FailureCause.RESOURCE_LIMIT),
        (f"Something new. {TRAILER} {NO_POLICY.format('SAGEMAKER_JOB_INTERNAL_ERROR')}", FailureCause.INTERNAL),
        (f"Something new. {TRAILER} {NO_POLICY.format('Step.THROTTLING')}", FailureCause.THROTTLING),
        (f"Something new. {TRAILER} {NO_POLICY.format('Step.SERVICE_FAULT')}", FailureCause.INTERNAL),
        ("AlgorithmError: CapacityError: Rate exceeded, exit code: 1", FailureCause.RUN),
        ("ClientError: AlgorithmError: ResourceLimitExceeded", FailureCause.RUN),
        ("ClientError: No S3 objects found under S3 URL", FailureCause.RUN),
        ("", FailureCause.RUN),
    ],
)
def test_a_cause_is_told_by_type_and_phrase_wherever_they_stand_but_not_by_a_scripts_words(
    words: str, cause: FailureCause
) -> None:
    assert cause_of(words) is cause
    assert cause.passes is (cause is not FailureCause.RUN)


@pytest.mark.parametrize("between", [" ", "\n"])
@pytest.mark.parametrize("ending", ["", " " + NO_POLICY.format("SAGEMAKER_RESOURCE_LIMIT")])
def test_what_is_told_of_retries_names_the_account_and_goes(between: str, ending: str) -> None:
    assert without_trailer(f"The limit is 0.{between}{TRAILER}{ending}") == "The limit is 0."


WORDS = sorted((Path(__file__).parents[1] / "data/words").glob("*.json"))


@pytest.mark.parametrize("path", WORDS, ids=[path.stem for path in WORDS])
def test_words_that_were_kept_of_real_accounts_are_taken_for_what_they_were(path: Path) -> None:
    """Written by the smoke suite (docs/aws.md): copy its words-*.json here."""
    words = json.loads(path.read_text(encoding="utf-8"))
    assert words["steps"], "what is kept has a failed step"
    assert {cause_of(reason) for reason in words["steps"].values()} == {FailureCause(words["cause"])}


@pytest.mark.parametrize(
    ("words", "is_memory"),
    [
        (
            "AlgorithmError: Please use an instance type with more memory, or reduce the size of job data "
            "processed on an instance., exit code: 137",
            True,
        ),
        ("AlgorithmError: , exit code: 137", True),
        ('AlgorithmError: ExecuteUserScriptError:\nExitCode -9\nErrorMessage ""', True),
        ("AlgorithmError: unexpected MemoryError in schema.py, line 7: see the job's log", True),
        ("there is no column 'MemoryError' to predict", False),
        ("AlgorithmError: unexpected ValueError, exit code: 1", False),
        ("AlgorithmError: column 'x137' has exit code 1370", False),
        ("", False),
    ],
)
def test_a_job_killed_for_its_memory_is_recognised(words: str, is_memory: bool) -> None:
    assert is_out_of_memory(words) is is_memory


def test_what_a_script_said_itself_counts_before_its_exit_code() -> None:
    assert is_out_of_memory(
        "AlgorithmError: exit code: 137", "unexpected MemoryError in tables.py, line 3: see the log"
    )
    assert not is_out_of_memory("AlgorithmError: exit code: 137", "there is no column 'MemoryError' to predict")


@pytest.mark.parametrize(
    ("reason", "nothing"),
    [
        ("AlgorithmError: , exit code: 1", True),
        ("AlgorithmError: ExitCode 1, exit code: 1", True),
        ("AlgorithmError: ExecuteUserScriptError:\nExitCode 1", True),
        ("AlgorithmError: See job logs for more information", True),
        ("Please refer to the job logs in CloudWatch", True),
        ("", True),
        ("AlgorithmError: there is no column 'y', exit code: 1", False),
        ("AlgorithmError: see the manual, exit code: 1", False),
        ("ClientError: Data download failed", False),
        ('AlgorithmError: ExecuteUserScriptError:\nExitCode 1\nErrorMessage "NameError: x"', False),
    ],
)
def test_an_exit_code_alone_is_no_reason(reason: str, nothing: bool) -> None:
    assert says_nothing(reason) is nothing


TRACEBACK = [
    "epoch 1",
    "Traceback (most recent call last):",
    '  File "/opt/ml/code/train.py", line 9, in <module>',
    "    frame = pandas.read(path)",
]
TOOLKIT = [
    "2026-11-28 02:15:30,100 sagemaker-training-toolkit ERROR    Reporting training FAILURE",
    "2026-11-28 02:15:30,100 sagemaker-training-toolkit ERROR    ExecuteUserScriptError:",
    "ExitCode 1",
    'Command "/miniconda3/bin/python train.py --depth 3"',
]


@pytest.mark.parametrize(
    ("printed", "line"),
    [
        ([*TRACEBACK, "NameError: name 'pandas' is not defined"], "NameError: name 'pandas' is not defined"),
        (
            [*TRACEBACK, "NameError: name 'pandas' is not defined", *TOOLKIT],
            "NameError: name 'pandas' is not defined",
        ),
        (["ModuleNotFoundError: No module named 'xgboost'"], "ModuleNotFoundError: No module named 'xgboost'"),
        ([*TRACEBACK, "numpy.exceptions.AxisError: axis 3"], "numpy.exceptions.AxisError: axis 3"),
        (["KeyError: 'a'", "", "During handling, another:", "ValueError: b", "cleaning up"], "ValueError: b"),
        ([*TOOLKIT[:3], 'ErrorMessage "ImportError: no such file"', TOOLKIT[3]], "ImportError: no such file"),
        (["bash: train.sh: not found", ""], "the last line that it printed: bash: train.sh: not found"),
        (["epoch 3 loss 0.2"], "the last line that it printed: epoch 3 loss 0.2"),
        (["  SyntaxError: invalid syntax\n"], "SyntaxError: invalid syntax"),
        (["x" * 5000], "the last line that it printed: " + "x" * 300),
        (TOOLKIT, None),
        ([], None),
    ],
)
def test_the_line_of_a_log_that_says_why_is_found(printed: list[str], line: str | None) -> None:
    assert error_line(printed) == line


def test_reasons_that_differ_in_names_and_numbers_are_of_one_kind_and_apostrophes_quote_nothing() -> None:
    alike = ["there is no column 'a' in 3 rows", "there is no column 'b' in 47 rows"]
    assert len({kind_of_reason(reason) for reason in alike}) == 1
    plain = "the file isn't readable and it doesn't help"
    assert kind_of_reason(plain) == plain
