"""What is kept of the reports that a run's scripts write, and what the scripts and the service agree on."""

import json

import pytest
import yaml

import formats
from common import LIBRARIES_BYTES, MEMORY_PER_BYTE
from tests.build import request
from trainyard.contracts.compiled_policy import DEPLOYED
from trainyard.contracts.results import NOTE_LENGTH_MAX, NOTES_SHOWN_MAX, parse_evaluation, parse_profile
from trainyard.domain import file_types
from trainyard.domain.errors import Malformed
from trainyard.domain.receipts import receipt_of
from trainyard.domain.requests import Outcome, State

PROFILE = {"sha256": "0" * 64, "files": [{"md5": "0" * 32}]}

GIB = 1024**3
MEMORY_GIB = {"ml.t3.medium": 4, "ml.m5.large": 8, "ml.m5.xlarge": 16, "ml.m5.2xlarge": 32, "ml.m5.4xlarge": 64}
"""Of the instance types in the shipped policy (AWS, "Amazon EC2 instance types")."""


def test_rows_and_the_first_notes_of_a_profile_are_kept_bounded_and_printable() -> None:
    notes = ["plain\u00a0text", "\x1b[31mred\u202e", "x" * 999, *["more"] * 7]
    profile = parse_profile(
        json.dumps(
            PROFILE | {"problem": "regression", "rows": 90, "dropped": {"a": 2, "b": 3}, "notes": notes}
        ).encode()
    )
    assert (profile.problem, profile.rows, profile.rows_dropped) == ("regression", 90, 5)
    shown = (profile.notes_shown() or "").splitlines()
    assert len(shown) == NOTES_SHOWN_MAX + 1
    assert shown[0] == "plain text"
    assert shown[1].isprintable()
    assert len(shown[2]) == NOTE_LENGTH_MAX
    assert shown[-1] == "more notes are in profile.json"


def test_a_profile_of_other_scripts_needs_no_more_than_its_files() -> None:
    profile = parse_profile(json.dumps(PROFILE).encode())
    assert (profile.problem, profile.rows, profile.rows_dropped, profile.notes_shown()) == (None, None, 0, None)
    assert parse_evaluation(b'{"quality": {"metric": "r2", "value": 0.5}}').baseline is None


@pytest.mark.parametrize(
    "wrong", [{"rows": -1}, {"rows": "many"}, {"dropped": {"x": -1}}, {"notes": ["x"] * 1001}, {"problem": "x\ny"}]
)
def test_what_other_scripts_write_under_these_names_is_not_believed_and_costs_nothing_else(
    wrong: dict[str, object],
) -> None:
    profile = parse_profile(json.dumps(PROFILE | wrong).encode())
    assert (profile.sha256, profile.problem, profile.rows, profile.rows_dropped) == ("0" * 64, None, None, 0)
    assert profile.notes_shown() is None
    evaluation = parse_evaluation(b'{"quality": {"metric": "r2", "value": 0.5}, "baseline": 0.5}')
    assert (evaluation.quality.value, evaluation.baseline) == (0.5, None)
    with pytest.raises(Malformed):
        parse_profile(json.dumps(PROFILE | {"sha256": "no digest"}).encode())


def test_a_receipt_tells_what_was_learnt_from_how_many_rows_and_beside_what() -> None:
    outcome = Outcome(
        quality=0.8, quality_metric="r2", baseline=0.1, problem="regression", rows=90, rows_dropped=5, notes="a\nb"
    )
    result = receipt_of(request(state=State.SUCCEEDED, outcome=outcome))["result"]
    assert isinstance(result, dict)
    names = ("quality", "quality_metric", "baseline", "problem", "rows", "rows_dropped", "notes")
    assert [result[name] for name in names] == [0.8, "r2", 0.1, "regression", 90, 5, ["a", "b"]]


def test_scripts_and_service_refuse_the_same_files() -> None:
    assert file_types.UNREADABLE == formats.UNREADABLE
    assert file_types.objection(b"%PDF-1.7", "y") == "is a PDF document: export the table as CSV"


HEAD = "plan,Größe,churned\n"


@pytest.mark.parametrize(
    "table",
    [
        *(
            (HEAD + "a,1,yes\nb,2,no\n").encode(encoding)
            for encoding in ("utf-8", "utf-8-sig", "utf-16", "cp1252")
        ),
        ("Customers of 2026\n\n# by hand\n" + HEAD + "a,1,yes\n").encode(),
        HEAD.encode(),  # no more than a header: the scripts say what is wrong with it
        b"x" * file_types.FIRST_BYTES,  # one long line: its end is not seen
        (b"Title\n\n" + b",".join(b"a%05d" % n for n in range(3000)))[: file_types.FIRST_BYTES],
        (b'"a\n1","b\n2",' * 3000)[: file_types.FIRST_BYTES],
        (b"# a comment\n" * 95 + b",".join(b"a%05d" % n for n in range(3000)))[: file_types.FIRST_BYTES],
        b"ORCID,name,churned\n1,a,yes\n2,b,no\n",
        b"PAR1,name,churned\n1,a,yes\n2,b,no\n",
        '{"plan": 1}\n{"plan": 2}\n{"plan": 3}\n'.encode("utf-16"),
        b"PK\x03\x04 and more\n1\n2\n",
        b"PAR1 and more\n1\n2\n",
        b"\x1f\x8b and more\n1\n2\n",
        b'{"plan": 1}\n{"plan": 2}\n{"plan": 3}\n',
        b"",
    ],
)
def test_what_may_be_a_table_with_the_column_is_left_to_the_scripts(table: bytes) -> None:
    assert file_types.objection(table, "churned") is None
    assert file_types.objection(table, 'with a "quote"') is None
    assert file_types.objection(table, "column 1") is None


def test_values_of_a_first_row_are_not_quoted() -> None:
    rows = b"".join(b"%d,Anna Miller,churner\n" % n for n in range(9))
    assert file_types.objection(rows, "churned") == "has no column 'churned' to predict; is there a header line?"


def test_a_large_text_without_the_column_is_refused_once_its_header_has_ended() -> None:
    large = (HEAD.encode() + b"a,1,yes\n" * 5000)[: file_types.FIRST_BYTES]
    assert file_types.objection(large, "price") == "has no column 'price' to predict"
    assert file_types.objection(b"ORC\0\1", "price") == "is an ORC file: convert it to Parquet or CSV"


def test_a_text_without_the_column_is_refused_and_near_names_are_given() -> None:
    body = (HEAD + "a,1,yes\nb,2,no\n").encode()
    assert file_types.objection(body, "price") == "has no column 'price' to predict"
    assert file_types.objection(body.replace(b",", b";"), "chrned") == (
        "has no column 'chrned' to predict; did you mean 'churned'?"
    )
    assert file_types.objection("x,größe\n1,2\n3,4\n".encode("cp1252"), "größe") is None
    assert (
        file_types.objection("x,größe\n1,2\n3,4\n".encode("utf-16"), "price") == "has no column 'price' to predict"
    )


def test_the_policys_instances_have_memory_for_the_largest_file_that_they_are_given() -> None:
    """By the line that `make memory` measures."""
    policy = yaml.safe_load(DEPLOYED.with_name("policy.yaml").read_text(encoding="utf-8"))
    for name, tier in policy["tiers"].items():
        for choice in tier["instances"]:
            needed = LIBRARIES_BYTES + MEMORY_PER_BYTE * choice["data_mb_max"] * 1024**2
            for kind in ("processing", "training"):
                assert needed <= MEMORY_GIB[choice[kind]] * GIB, (name, choice)
