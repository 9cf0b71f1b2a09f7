"""What tenants really upload: what the first step makes of it, and what it says."""

import bz2
import gzip
import io
import json
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from local.sagemaker.interpreter import interpreter
from tests.running_steps import PROGRAMS, STEPS, Files, Prepare


def customers(rows: int = 120) -> pd.DataFrame:
    g = np.random.default_rng(3)
    months = g.integers(1, 60, rows)
    return pd.DataFrame(
        {
            "plan": g.choice(["basic", "plus", "pro"], rows),
            "months": months,
            "fee": g.normal(45, 9, rows).round(2),
            "churned": np.where(months + g.normal(0, 8, rows) < 25, "yes", "no"),
        }
    )


def homes(rows: int = 120) -> pd.DataFrame:
    g = np.random.default_rng(4)
    area = g.normal(90, 20, rows).round(1)
    return pd.DataFrame(
        {
            "area": area,
            "age": g.integers(0, 80, rows),
            "price": (area * 2.6 + g.normal(0, 9, rows)).round(2),
        }
    )


def csv(table: pd.DataFrame, **how: Any) -> bytes:
    text: str = table.to_csv(index=False, **how)
    return text.encode()


CHURN, HOMES = csv(customers()), csv(homes())
KINDS = {"category": 1, "number": 2}
LINES = CHURN.splitlines(keepends=True)


# --- reading ---------------------------------------------------------------------------------------------------


def test_a_table_reads_the_same_however_it_is_written() -> None:
    """A part of the ways; `make reading` goes through all."""
    done = run_program("reading_matrix.py", 17)
    assert done["wrong"] == []
    assert done["ways"] > 80


def run_program(name: str, number: int) -> dict[str, Any]:
    done = subprocess.run(
        [interpreter(), "-W", "error", str(PROGRAMS / name), str(STEPS), str(number)],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


PARQUET = """
import sys, io, pandas as pd
pd.read_csv(sys.stdin.buffer).to_parquet(sys.stdout.buffer)
"""


def parquet(body: bytes) -> bytes:
    return subprocess.run([interpreter(), "-c", PARQUET], input=body, capture_output=True, check=True).stdout


def zipped(files: Files) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return out.getvalue()


def json_lines(table: pd.DataFrame) -> bytes:
    text: str = table.to_json(orient="records", lines=True)
    return text.encode()


@pytest.mark.parametrize(
    ("files", "note"),
    [
        (CHURN, ""),
        ({"data.csv.gz": gzip.compress(CHURN)}, "data.csv.gz: unpacked from gzip"),
        ({"data": bz2.compress(CHURN)}, "data: unpacked from bz2"),
        ({"data.csv.gz": CHURN}, ""),
        ({"a.zip": zipped({"x/data.csv": CHURN, "__MACOSX/x/._data.csv": b"x"})}, "a.zip: unpacked from a zip"),
        ({"data.json": json_lines(customers())}, ""),
        ({"data.csv": parquet(CHURN)}, ""),
        ({"a.csv": CHURN, "b.csv": LINES[0]}, "1 file with a header and no rows left out (b.csv)"),
        (
            {"_SUCCESS": b"", ".a.csv.crc": b"crc", "README.md": b"# about", "a.csv": CHURN},
            "3 files without data left out (.a.csv.crc, README.md, _SUCCESS)",
        ),
        (
            {"a.csv": b"".join(LINES[:60]), "b.csv": csv(customers().iloc[59:, ::-1])},
            "1 file with the columns in another order (b.csv)",
        ),
        ({"a.csv": b"".join(LINES[:60]), "b.json": json_lines(customers().iloc[59:, ::-1])}, "1 file with the"),
        (b"".join([*LINES[:20], b"pro,3,40.1,yes,more\n", *LINES[20:]]), "1 row left out for another"),
        (b"\n,,,\n#from the shop\n" + CHURN, "1 line above the header (line 4) left out"),
        (CHURN.replace(b"\n", b"\r"), ""),
        (CHURN.replace(b"\n", b",,,\n"), ""),
        (CHURN.replace(b"\n", b",,\n").replace(b",,", b"", 1), "the empty fields after them were left out"),
        ({"licences_2023.csv": CHURN}, ""),
    ],
)  # fmt: skip
def test_the_same_customers_in_many_files(prepare: Prepare, files: Files | bytes, note: str) -> None:
    answer = prepare(files)
    assert answer.get("message") is None, answer
    assert (answer["rows"], answer["kinds"], answer["problem"]) == (120, KINDS, "classification")
    assert len(answer["notes"]) == bool(note)
    assert note in "".join(answer["notes"])


NESTED = """
import sys, pyarrow as pa, pyarrow.parquet as pq
pq.write_table(pa.table({"churned": ["yes", "no"] * 50, "tags": [["a"]] * 100}), sys.stdout.buffer)
"""


def nested_parquet() -> bytes:
    return subprocess.run([interpreter(), "-c", NESTED], capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    ("name", "body", "reason"),
    [
        ("data.csv", b"".join([LINES[0], *(line.rstrip() + b",1\n" for line in LINES[1:])]),
         "120 of 120 rows do not have the 4 fields of the header (line 2 has 5)"),
        ("data.xlsx", zipped({"xl/workbook.xml": b"<x/>", "xl/vbaProject.bin": b""}), "is a broken workbook"),
        ("data.xls", b"\xd0\xcf\x11\xe0" + b"x" * 600, "is a workbook of an old Excel"),
        ("data.pdf", b"%PDF-1.7 ...", "is a PDF document"),
        ("two.zip", zipped({"a.csv": CHURN, "b.csv": CHURN}), "is a zip archive of 2 files"),
        ("bad.gz", gzip.compress(CHURN)[:-20], "is broken gzip"),
        ("bad.zip", zipped({"a.csv": CHURN})[:-30], "is a broken zip archive"),
        ("twice.gz", gzip.compress(gzip.compress(CHURN)), "is compressed twice"),
        ("data.zst", b"\x28\xb5\x2f\xfd...", "is compressed with zstd"),
        ("nested.parquet", nested_parquet(), "1 columns hold lists or structures"),
        ("data.csv", ("Zürich,Genève\n" * 9).encode() + b"Z\xfcrich,x\n", "is UTF-8 with broken characters (1, "
         "the first in line 10)"),
        ("bad.parquet", b"PAR1 \0 not at all PAR1", "is a broken Parquet file"),
        ("data.json", b'[{"churned": "yes"}]', "is one JSON array: write one JSON object per line"),
        ("data.jsonl", b'{"churned": "yes"}\n{"churned": }\n', "line 2: is not JSON"),
        ("data.jsonl", b'{"churned": "yes", "x": {"y": 1}}\n', "line 1: value 2 is nested"),
        ("data.csv", b"a,b,a,churned\n1,2,3,yes\n", "has two columns of the same name (column 3 repeats"),
        ("data.csv", b"churned" + b"".join(b",c%d" % n for n in range(20_000)) + b"\n", "has 20,001 columns"),
        ("data.csv", b'a,churned\n"' + b"x" * 2_000_000 + b'",yes\n', "line 2: a field has more than 1,048,576"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_name(prepare: Prepare, name: str, body: bytes, reason: str) -> None:
    assert reason in prepare({name: body}).get("message", "")


def test_what_unpacks_to_more_than_the_instance_can_hold_is_refused(tmp_path: Path) -> None:
    """With the memory of a small machine; 2 GB of zeros are 2 MB of gzip."""
    (tmp_path / "input").mkdir()
    (tmp_path / "input/bomb.csv.gz").write_bytes(gzip.compress(b"a,churned\n" + b"0" * 50_000_000))
    program = "import sys; sys.path.insert(0, sys.argv[1]); import common, formats, pathlib\n" + (
        "common.memory_bytes = lambda: 316_000_000\n"
        "from common import run\n"
        "def step():\n"
        "    limit = common.table_bytes_max()\n"
        "    with formats.content(pathlib.Path('input/bomb.csv.gz'), pathlib.Path('.'), limit): pass\n"
        "run(step, pathlib.Path('failure'))"
    )
    done = subprocess.run(
        [interpreter(), "-c", program, str(STEPS)], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 1
    assert "bomb.csv.gz unpacks to more than 10,000,000 bytes" in (tmp_path / "failure").read_text()
    assert not (tmp_path / "unpacked").exists()


def test_parts_together_are_bounded_by_the_memory_too(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    for number in range(3):
        (tmp_path / f"input/{number}.csv.gz").write_bytes(
            gzip.compress(b"a,churned\n" + b"12345678,yes\n" * 40_000)
        )
    (tmp_path / "sparse.json").write_text("".join(f'{{"k{n % 500}": 1}}\n' for n in range(10_000)))
    (tmp_path / "repeated.parquet").write_bytes(repeated_parquet())
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import common, reading, pathlib\n"
        "common.memory_bytes = lambda: 256_000_000 + 6 * 1_200_000\n"
        "files = sorted(pathlib.Path('input').iterdir())\n"
        "assert len(reading.read_all(files[:1], 'churned')[0]) == 40_000\n"
        "for files in (files, [pathlib.Path('sparse.json')], [pathlib.Path('repeated.parquet')]):\n"
        "    try: reading.read_all(files, 'churned')\n"
        "    except common.DataError as error: print(error)\n"
    )
    command = [interpreter(), "-c", program, str(STEPS)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    parts, sparse, repeated = done.stdout.splitlines()
    assert "csv.gz unpacks to more than" in parts
    assert "sparse.json has too many rows for 500 keys" in sparse
    assert "repeated.parquet unpacks to more than" in repeated


REPEATED = """
import sys, pyarrow as pa, pyarrow.parquet as pq
pq.write_table(pa.table({"a": pa.array(["x" * 1000] * 300_000)}), sys.stdout.buffer)
"""


def repeated_parquet() -> bytes:
    return subprocess.run([interpreter(), "-c", REPEATED], capture_output=True, check=True).stdout


# --- what columns are ------------------------------------------------------------------------------------------


def changed(table: pd.DataFrame, column: str, change: Callable[[Any], Any]) -> bytes:
    return csv(table.assign(**{column: table[column].map(change)}))


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda value: "?" if value > 110 else "-" if value < 70 else value, ""),
        (lambda value: f"{value} m2", "column 'area': numbers with a unit were read without it"),
        (lambda value: f"${value}", "column 'area': numbers with a unit were read without it"),
        (lambda value: f"{value} %", "numbers with a unit"),
        (lambda value: "inf" if value > 110 else value, ""),
        (lambda value: f"{value * 1000:,.1f}", ""),
        (lambda value: f"{value:.2f}".replace(".", ","), ""),
        (lambda value: "about 90" if value == 96.2 else value, ""),
    ],
)
def test_numbers_are_read_as_people_write_them(
    prepare: Prepare, change: Callable[[float], Any], note: str
) -> None:
    answer = prepare(changed(homes(), "area", change), target="price")
    assert (answer["kinds"], answer["problem"], answer["rows"]) == ({"number": 2}, "regression", 120)
    assert note in " ".join(answer["notes"])


def test_a_value_that_is_no_number_is_named_by_its_line(prepare: Prepare) -> None:
    values = homes()["area"].astype(object)
    values.iloc[17] = "about ninety"
    answer = prepare(csv(homes().assign(area=values)), target="price")
    assert answer["notes"] == ["column 'area': 1 value not a number (line 19), read as missing"]


def test_a_column_of_numbers_and_texts_is_text_and_is_named(prepare: Prepare) -> None:
    answer = prepare(changed(customers(), "months", lambda value: "many" if value > 40 else value))
    assert answer["kinds"] == {"category": 2, "number": 1}
    assert "column 'months' is read as text" in answer["notes"][0]


def test_identifiers_indexes_and_constants_are_left_out(prepare: Prepare) -> None:
    table = customers().assign(id=[f"C{n:05d}" for n in range(120)], country="CH", empty="")
    answer = prepare(table.to_csv().encode())
    assert answer["left_out"] == {
        "column 1": "it numbers the rows",
        "id": "its texts differ in nearly every row: an identifier, or free text",
        "country": "it has the same value in every row",
        "empty": "it has no values",
    }
    assert answer["kinds"] == KINDS


@pytest.mark.parametrize("write", ["csv", "parquet"])
def test_an_index_of_shuffled_rows_is_left_out(prepare: Prepare, write: str) -> None:
    """Of a sorted file it gives the answer away."""
    shuffled = (
        customers().sort_values("churned", ignore_index=True).sample(frac=1, random_state=1).to_csv().encode()
    )
    answer = prepare(shuffled if write == "csv" else parquet(shuffled))
    assert list(answer["left_out"].values()) == ["it numbers the rows"]
    files = {f"{n}.csv": customers().iloc[n::3].reset_index(drop=True).to_csv().encode() for n in range(3)}
    assert list(prepare(files)["left_out"]) == ["column 1"]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1e18 if n == 5 else n / 7 for n in range(120)], "number"),
        ([n * 3.21e20 for n in range(120)], "number"),
        (["00" if n == 5 else n for n in range(120)], "number"),
        ([12345678901234567 + n % 20 for n in range(120)], "category"),
        ([f"{n % 40}.1k" for n in range(110)] + [950] * 10, "category"),
        ([f"{n % 40 + 1},5E+05" for n in range(120)], "number"),
        (["$5", "-$-5", "-$7"] * 40, "category"),
        (["1" * 70, "2" * 70] * 60, "category"),
        ([" " * 30 + "x" * 20 + "-" * n for n in range(60)] * 2, "category"),
    ],
)
def test_odd_numbers_are_neither_lost_nor_misread(prepare: Prepare, values: list[Any], kind: str) -> None:
    answer = prepare(csv(homes().drop(columns="age").assign(odd=values)), target="price")
    kinds = {"number": 2} if kind == "number" else {"number": 1, kind: 1}
    assert answer["kinds"] == kinds, answer


def test_a_long_cell_takes_no_time_to_be_no_number(prepare: Prepare) -> None:
    values = ["-" + " " * 200_000 + "x", "9" * 200_000, "-$" * 100_000] * 40
    assert prepare(csv(homes().assign(odd=values)), target="price")["rows"] == 120


@pytest.mark.parametrize(
    ("dates", "months"),
    [
        ([f"{1 + n % 12:02d}-01-2024" for n in range(119)] + ["02-28-2024"], 12),
        ([f"{1 + n % 12:02d}/{1 + n % 9:02d}/2024" for n in range(119)] + ["31/01/2024"], 9),
        ([f"{1 + n % 12:02d}/{1 + n % 9:02d}/2024" for n in range(119)] + ["01/31/2024"], 12),
    ],
)
def test_one_date_decides_what_the_others_are(prepare: Prepare, dates: list[str], months: int) -> None:
    answer = prepare(csv(homes().assign(day=dates)), target="price")
    assert (answer["kinds"], answer["notes"]) == ({"number": 2, "date": 1}, [])
    assert answer["distinct"]["day (month)"] == months


def test_parts_of_a_date_take_no_columns_name(prepare: Prepare) -> None:
    table = homes().assign(since=["2026-01-02", "2026-02-03"] * 60, other=7)
    answer = prepare(csv(table.rename(columns={"other": "since (month)", "age": "since (day)"})), target="price")
    assert answer["kinds"] == {"number": 2, "date": 1}


def test_leading_zeros_stay_text_and_dates_become_parts(prepare: Prepare) -> None:
    table = customers().assign(zip=["00501", "10001", "02134"] * 40, since=["2026-01-31", "2025-12-01"] * 60)
    assert prepare(csv(table))["kinds"] == {"category": 2, "number": 2, "date": 1}
    swiss = table.assign(since=["31.01.2026", "01.12.2025"] * 60)
    assert prepare(csv(swiss, sep=";"))["kinds"] == {"category": 2, "number": 2, "date": 1}
    unclear = prepare(csv(table.assign(since=["01/02/2026", "03/04/2026"] * 60)))
    zeros, note = unclear["notes"]
    assert zeros.startswith("column 'zip' is read as text: its numbers have leading zeros")
    assert note == "column 'since': its dates were read with the month first; nothing in them decides it"


def test_a_row_of_totals_is_left_out(prepare: Prepare) -> None:
    answer = prepare(HOMES + b"Total,,72269.77\n", target="price")
    assert (answer["rows"], answer["dropped"]) == (120, {"a row of totals": 1})
    assert answer["notes"] == ["the last row (line 122) sums up the others and was left out"]


# --- what is to be learnt --------------------------------------------------------------------------------------


def with_target(values: list[Any]) -> bytes:
    return csv(homes(len(values)).assign(y=values))


@pytest.mark.parametrize(
    ("values", "problem", "rows", "note"),
    [
        (["yes", "Yes ", "no"] * 40, "classification", 120, "1 class of column 'y' united: spellings"),
        (["yes", "no", " "] * 40, "classification", 80, "40 rows without a value for 'y' left out"),
        (["yes", "no", "n/a"] * 40, "classification", 80, "40 rows without a value"),
        (["yes", "no"] * 59 + ["rare", "rare"], "classification", 118, "1 class of column 'y' with fewer than"),
        ([0, 1, 2] * 40, "classification", 120, ""),
        ([n % 30 for n in range(120)], "regression", 120, "column 'y' has 30 different whole numbers, which"),
        ([min(n % 40, 6) for n in range(119)] + [9], "regression", 120, "set the problem to \"classification\""),
        ([f"${n}.50" for n in range(120)], "regression", 120, "the target's numbers were read without their unit"),
        ([f"{n}.5" for n in range(119)] + ["inf"], "regression", 119, "1 row without a value for 'y' left out"),
        ([True, False] * 60, "classification", 120, ""),
        (["001", "002", "003"] * 40, "classification", 120, ""),
        (["0"] * 900 + ["1"] * 95 + ["9b"] * 9, "classification", 1004, ""),
        (["ABC1", "ABC2"] * 60, "classification", 120, ""),
        ([12345678901234567, 12345678901234568] * 60, "classification", 120, ""),
    ],
)  # fmt: skip
def test_the_problem_follows_from_a_stated_rule(
    prepare: Prepare, values: list[Any], problem: str, rows: int, note: str
) -> None:
    answer = prepare(with_target(values), target="y")
    assert (answer.get("problem"), answer.get("rows")) == (problem, rows), answer
    assert note in " ".join(answer["notes"])


def test_the_tenant_says_otherwise(prepare: Prepare) -> None:
    ids = with_target([n % 20 for n in range(120)])
    assert prepare(ids, target="y")["problem"] == "regression"
    assert prepare(ids, target="y", problem="classification")["problem"] == "classification"
    assert prepare(with_target([0, 1, 2] * 40), target="y", problem="regression")["problem"] == "regression"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (with_target(["x" * 300, "y"] * 60), "column 'y' has a class of 300 characters"),
        (with_target([f"name {n}" for n in range(120)]), "120 of the 120 classes of column 'y' have fewer than"),
        (csv(pd.DataFrame({"file": [f"img_{n}.jpg" for n in range(60)], "y": ["cat", "dog", "cat"] * 20})),
         "there is no column besides 'y' to learn from; 'file' was left out: its texts differ in nearly every"),
    ],
)  # fmt: skip
def test_what_cannot_be_learnt_is_refused(prepare: Prepare, body: bytes, reason: str) -> None:
    assert reason in prepare(body, target="y")["message"]


# --- predictions -----------------------------------------------------------------------------------------------


def test_a_row_predicts_the_same_alone_together_in_other_orders_and_in_json() -> None:
    """A few random tables; `make reading` trains on more."""
    done = run_program("rows_alone.py", 2)
    assert done["wrong"] == []
    assert done["compared"] > 800
