"""Write one table in every way that the reader should understand, and read each: reading_matrix.py STEPS EVERY.

Run with the libraries of the steps' image, on each way of EVERY. Prints JSON: how many ways were read, and those
that read as another table.
"""

import bz2
import gzip
import io
import itertools
import json
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, sys.argv[1])

import numpy as np
import pandas as pd

from common import DataError
from reading import read_all
from schema import decide, frame
from target import read_target


def zipped(body: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/data.csv", body)
    return out.getvalue()


ROWS = 60
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "cp1252")
DELIMITERS = (",", ";", "\t", "|")
DECIMALS = (".", ",")
QUOTINGS = ("where needed", "all")
HEADERS: dict[str, Callable[[list[str]], list[str]]] = {
    "plain": lambda lines: lines,
    "blanks around names": lambda lines: [lines[0].replace("city", " city ", 1), *lines[1:]],
    "sep= line": lambda lines: ["sep=" + next(c for c in lines[0] if c in ",;\t|"), *lines],
    "title": lambda lines: ["Sales of the year", "", *lines],
    "comment": lambda lines: ["# made by a tool", *lines],
    "repeated": lambda lines: [*lines[:30], lines[0], *lines[30:]],
    "trailing delimiter": lambda lines: [
        lines[0],
        *(line + next(c for c in lines[0] if c in ",;\t|") for line in lines[1:]),
    ],
    "blank lines": lambda lines: [*lines[:5], "", *lines[5:], "", ""],
}
LINE_ENDS = ("\n", "\r\n")
PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda body: body,
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "zip": zipped,
}


def rows() -> list[tuple[str, float, int, str, str]]:
    g = np.random.default_rng(7)
    cities = ["Zürich", "Genève", "a, b; c", 'the "best"', "Bern"]
    return [
        (
            cities[n % 5],
            round(float(g.normal(100, 50)), 2),
            int(g.integers(0, 5000)),
            f"2026-0{1 + n % 9}-1{n % 10}",
            "yes" if n % 3 else "no",
        )
        for n in range(ROWS)
    ]


NAMES = ("city", "fee", "visits", "day", "churned")


def written(delimiter: str, decimal: str, quoting: str) -> list[str]:
    def field(value: object) -> str:
        text = str(value).replace(".", decimal) if isinstance(value, float) else str(value)
        needed = quoting == "all" or any(c in text for c in (delimiter, '"', ",", ";", "|"))
        return '"' + text.replace('"', '""') + '"' if needed else text

    return [delimiter.join(map(field, line)) for line in (NAMES, *rows())]


def read(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    files = sorted(folder.iterdir())
    table, places = read_all(files, "churned")
    target = read_target(
        "churned", table.cells[table.columns.index("churned")], "auto", table.delimiter, places.where
    )
    found = decide(table, "churned", places.where)
    features = frame(table, found.columns)
    return features, list(target.values)


def expected() -> tuple[pd.DataFrame, list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "data.csv").write_text("\n".join(written(",", ".", "all")) + "\n", encoding="utf-8")
        features, target = read(Path(folder))
    given = rows()
    assert features["fee"].tolist() == [row[1] for row in given]
    assert features["visits"].tolist() == [row[2] for row in given]
    assert features["city"].tolist() == [row[0] for row in given]
    assert features["day (month)"].tolist() == [1 + n % 9 for n in range(ROWS)]
    assert target == [row[4] for row in given]
    return features, target


def main() -> None:
    features, target = expected()
    count, wrong = 0, []
    ways = itertools.product(ENCODINGS, DELIMITERS, DECIMALS, QUOTINGS, HEADERS, LINE_ENDS, PACKINGS)
    every = int(sys.argv[2])
    for number, way in enumerate(ways):
        if number % every:
            continue
        encoding, delimiter, decimal, quoting, header, line_end, packing = way
        if packing != "plain" and number % 7:  # each packing with a part of the others
            continue
        body = line_end.join([*HEADERS[header](written(delimiter, decimal, quoting)), ""]).encode(encoding)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "data.csv").write_bytes(PACKINGS[packing](body))
            count += 1
            try:
                same = read(Path(folder))
                if not (features.equals(same[0]) and target == same[1]):
                    wrong.append([*way, "reads as another table"])
            except DataError as error:
                wrong.append([*way, str(error)])
    print(json.dumps({"ways": count, "wrong": wrong}))


if __name__ == "__main__":
    main()
