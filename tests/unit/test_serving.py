"""Which modes allow what: the checked matrix, and the limits against AWS's own service models."""

import itertools
from pathlib import Path
from typing import Any

import boto3
import pytest

from cli.predictions import parts_of
from trainyard.domain.serving import (
    ALLOWED,
    LIMITS,
    MB,
    SERVERLESS_MEMORY_MB,
    SUPPORTED,
    Isolation,
    Mode,
    ServingSettings,
    objection_to,
)

SILO, BRIDGE, POOL = Isolation.SILO, Isolation.BRIDGE, Isolation.POOL
MATRIX = {
    Mode.REAL_TIME: (True, False, False),
    Mode.SERVERLESS: (True, False, False),
    Mode.ASYNCHRONOUS: (True, False, False),
    Mode.BATCH_TRANSFORM: (True, True, True),
    Mode.MULTI_MODEL: (False, True, True),
    Mode.MULTI_CONTAINER: (False, True, True),
    Mode.INFERENCE_COMPONENT: (True, True, True),
}
"""Mode → whether it allows silo, bridge and pool."""
CASES = [
    (mode, isolation, allowed)
    for mode, row in MATRIX.items()
    for isolation, allowed in zip((SILO, BRIDGE, POOL), row, strict=True)
]


@pytest.mark.parametrize(("mode", "isolation", "allowed"), CASES)
def test_the_matrix_of_modes_and_isolation(mode: Mode, isolation: Isolation, allowed: bool) -> None:
    objection = objection_to(ServingSettings(mode=mode, isolation=isolation))
    assert (objection is None) is allowed
    if objection is not None:
        assert str(mode) in objection
        for other in ALLOWED[mode]:
            assert str(other) in objection, "what the mode allows"
        for taker in (m for m, row in MATRIX.items() if row[list(Isolation).index(isolation)]):
            assert str(taker) in objection, "which modes allow it"


def test_every_mode_stands_in_every_table() -> None:
    assert set(MATRIX) == set(ALLOWED) == set(LIMITS) == set(Mode)
    assert len(CASES) == len(Mode) * len(Isolation)


@pytest.mark.parametrize(("mode", "isolation", "allowed"), CASES)
@pytest.mark.parametrize("own", ["own_code", "own_key"])
def test_own_code_and_own_keys_allow_no_sharing(mode: Mode, isolation: Isolation, allowed: bool, own: Any) -> None:
    objection = objection_to(ServingSettings(mode=mode, isolation=isolation), **{own: True})
    assert (objection is None) is (allowed and isolation is SILO)


@pytest.mark.parametrize(
    ("memory_mb", "concurrency", "named"),
    [
        (1024, 1, None),
        (6144, 200, None),
        (1000, 1, "1000 MB"),
        (7168, 1, "7168 MB"),
        (2048, 0, "concurrency of 0"),
        (2048, 201, "concurrency of 201"),
    ],
)
def test_serverless_endpoints_have_sizes(memory_mb: int, concurrency: int, named: str | None) -> None:
    settings = ServingSettings(mode=Mode.SERVERLESS, isolation=SILO, memory_mb=memory_mb, concurrency=concurrency)
    objection = objection_to(settings)
    assert (objection is None) is (named is None)
    assert (named or "") in (objection or "")


def test_the_limits_are_those_of_awss_service_models() -> None:
    runtime = boto3.client("sagemaker-runtime", region_name="us-east-1").meta.service_model
    sagemaker = boto3.client("sagemaker", region_name="us-east-1").meta.service_model
    body = runtime.shape_for("BodyBlob").metadata["max"]
    for mode in (Mode.REAL_TIME, Mode.MULTI_MODEL, Mode.MULTI_CONTAINER, Mode.INFERENCE_COMPONENT):
        assert LIMITS[mode].request_bytes_max == body
    seconds = runtime.shape_for("InvocationTimeoutSecondsHeader").metadata["max"]
    assert LIMITS[Mode.ASYNCHRONOUS].answer_seconds_max == seconds
    client = sagemaker.shape_for("ModelClientConfig").members["InvocationsTimeoutInSeconds"].metadata["max"]
    assert LIMITS[Mode.BATCH_TRANSFORM].answer_seconds_max == client
    memory = sagemaker.shape_for("ServerlessMemorySizeInMB").metadata
    assert (SERVERLESS_MEMORY_MB[0], SERVERLESS_MEMORY_MB[-1]) == (memory["min"], memory["max"])
    assert all(b - a == 1024 for a, b in itertools.pairwise(SERVERLESS_MEMORY_MB))


def test_a_file_is_sent_in_parts_that_split_no_row() -> None:
    text = 'a,"b\nc"\n' + "".join(f'{n},"x\n{n}\u2028"\n' for n in range(4500))
    parts = list(parts_of(text, has_header=True))
    assert [part.rows for part in parts] == [2000, 2000, 500]
    assert all(part.text.startswith('a,"b\nc"\n') for part in parts)
    assert "".join(part.text.removeprefix('a,"b\nc"\n') for part in parts) == text.removeprefix('a,"b\nc"\n')
    lines = '{"a":"x\u2028y\\""}\n' * 2001
    assert [part.text.count("\n") for part in parts_of(lines, has_header=False)] == [2000, 1]
    assert list(parts_of("", has_header=True)) == [("", 0)]
    assert [part.rows for part in parts_of("a\n" + "1\n\n" * 3, has_header=True)] == [3]


def test_rows_that_are_large_are_sent_in_more_parts() -> None:
    parts = list(parts_of("a\n" + f"{'x' * 400_000}\n" * 7, has_header=True))
    assert [part.rows for part in parts] == [3, 3, 1]


def test_the_table_in_the_documentation_is_the_one_that_is_checked() -> None:
    page = (Path(__file__).parents[2] / "docs/serving.md").read_text(encoding="utf-8")
    table = page.partition("| mode | silo: nothing is shared |")[2].partition("\n\n")[0]
    rows = {cells[1]: cells[2:8] for line in table.splitlines()[2:] if (cells := line.replace(" ", "").split("|"))}
    assert set(rows) == {str(mode) for mode in Mode}
    for mode in Mode:
        limits, (silo, bridge, pool, size, seconds, at_rest) = LIMITS[mode], rows[mode.value]
        assert tuple(cell == "yes" for cell in (silo, bridge, pool)) == MATRIX[mode], mode
        assert size == (f"{limits.request_bytes_max // MB}MB" if limits.request_bytes_max < 1024 * MB else "1GB")
        assert seconds == ("60s" if limits.answer_seconds_max == 60 else "1h")
        assert (at_rest != "–") is limits.scales_to_zero, mode
    served = " ".join(page.partition("**Served today are ")[2].partition("**")[0].split())
    assert served == (
        "multi-model, multi-container and inference-component with bridge, and real-time, serverless, "
        "asynchronous and batch-transform with silo"
    )
    assert {(Mode(name), BRIDGE) for name in ("multi-model", "multi-container", "inference-component")} | {
        (Mode(name), SILO) for name in ("real-time", "serverless", "asynchronous", "batch-transform")
    } == SUPPORTED
