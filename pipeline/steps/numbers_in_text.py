"""Numbers as people and programs write them: decimal commas, thousands, units, currencies, and marks for none."""

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tables import NATIVE

NUMBER_MARKS = frozenset(
    {
        "", "?", "-", "--", ".", "na", "n/a", "n.a.", "nan", "null", "none", "nil", "missing", "<na>", "#n/a",
        "#na", "#div/0!", "#value!", "#ref!", "#num!", "#name?", "#null!", "#spill!", "#calc!",
        "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity", "-nan",
    }
)  # fmt: skip
"""Written in a column of numbers where there is none, in any case of letters. Infinity is not a measurement."""

UNIT_SHARE_MIN = 0.9
"""Of a column's numbers must have the unit for it to be one: in 2, 3, 4, 5more the texts are categories."""

BLANKS = re.compile("[ '\u2019\u00a0\u202f](?=[0-9]{3}(?![0-9]))")
"""Between thousands."""

NUMBER = {
    ".": re.compile(
        r"[+-]?(?:[0-9]+|[1-9][0-9]{0,2}(?:,[0-9]{3})+|(?=\.[0-9]))(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?"
    ),
    ",": re.compile(
        r"[+-]?(?:[0-9]+|[1-9][0-9]{0,2}(?:\.[0-9]{3})+|(?=,[0-9]))(?:,[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?"
    ),
}
"""By decimal sign, with the other one between thousands."""

DOT_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:\.[0-9]{3})+")
"""A number whose dots may be between thousands as well."""

CURRENCIES = (
    "AUD BRL CAD CHF CNY CZK DKK EUR GBP HKD HUF ILS INR JPY KRW MXN NOK NZD PLN RON RUB SEK SGD THB TRY TWD "
    "USD ZAR"
)
WITH_UNIT = re.compile(
    rf"(?P<sign>[+-]?) ?(?:(?P<prefix>[$\u00a2-\u00a5\u20a0-\u20bf]|{CURRENCIES.replace(' ', '|')}) ?)?"
    r"(?P<number>[+-]?[0-9.,](?:[0-9.,'\u2019\u00a0\u202f ]*[0-9.,])?) ?"
    r"(?![eE][+-]?[0-9])(?P<suffix>(?<=[0-9 ])[^0-9\s.,+\-'][^\s]{0,11})?"
)
"""A number with what stands beside it; 12.png is none, since a unit does not follow a dot."""

MULTIPLIERS = frozenset({"k", "m", "mn", "mio", "bn", "b", "t"})
"""Suffixes that mean other numbers than those without: not units, unless all have them."""

TEXT_MAX = 64
"""Characters of a number, with all that stands beside it."""


@dataclass(frozen=True)
class Style:
    """How the numbers of a column are written."""

    decimal: str = "."
    unit: str = ""
    """What stands before or after each."""

    is_ambiguous: bool = False
    """Whether both decimal signs fit: 1,500 may be a thousand and a half thousand, or one and a half."""


PLAIN = Style()
"""As programs write numbers."""


def style_of(texts: Sequence[str], *, prefer_comma: bool = False) -> tuple[Style, np.ndarray]:
    """Return the style that reads most of the texts, and the numbers that it reads; NaN where it reads none.

    With `prefer_comma`, a comma that may be either is a decimal comma: so write those who separate fields by ;.
    """
    plain = numbers(texts, PLAIN)
    if not np.isnan(plain).any() and not any("," in text for text in texts):
        dots = [text for text in texts if "." in text]
        return Style(is_ambiguous=bool(dots) and all(map(DOT_THOUSANDS.fullmatch, dots))), plain
    unit = _unit_of(texts)
    by_decimal = {decimal: numbers(texts, Style(decimal, unit)) for decimal in NUMBER}
    read = {decimal: int((~np.isnan(values)).sum()) for decimal, values in by_decimal.items()}
    is_ambiguous = read[","] == read["."] and not np.array_equal(by_decimal["."], by_decimal[","], equal_nan=True)
    commas = prefer_comma and any("," in text for text in texts)
    decimal = "," if read[","] > read["."] or (is_ambiguous and commas) else "."
    return Style(decimal, unit, is_ambiguous), by_decimal[decimal]


def _unit_of(texts: Sequence[str]) -> str:
    units: Counter[str] = Counter()
    plain = 0
    for text in texts:
        match = WITH_UNIT.fullmatch(text) if len(text) <= TEXT_MAX else None
        if match is None:
            continue
        unit = match["prefix"] or match["suffix"]
        if unit:
            units[unit] += 1
        else:
            plain += 1
    if not units:
        return ""
    (unit, times), *others = units.most_common(2)
    if plain and unit.casefold() in MULTIPLIERS:
        return ""
    return unit if times >= UNIT_SHARE_MIN * (times + plain) and not others else ""


def numbers(texts: Sequence[str], style: Style) -> np.ndarray:
    """Return each text as a number, by itself; NaN for a mark of a missing one, and for what is no number."""
    if style.decimal == "." and not style.unit and max(map(len, texts), default=0) <= TEXT_MAX:
        try:  # what Arrow reads, it reads as float() does
            values = pa.array(texts, pa.string()).cast(pa.float64()).to_numpy(zero_copy_only=False).copy()
        except pa.ArrowInvalid:
            pass
        else:
            values[~np.isfinite(values)] = np.nan
            return values
    return np.array([_number(text, style) for text in texts], dtype=np.float64)


def _number(text: str, style: Style) -> float:
    if len(text) > TEXT_MAX:
        return np.nan
    if text.startswith(NATIVE):
        return _native(text)
    sign = ""
    text = text.replace("\u2212", "-").strip()
    if style.unit:
        match = WITH_UNIT.fullmatch(text)
        if match is None or {match["prefix"], match["suffix"]} - {None, style.unit}:
            return np.nan
        sign, text = match["sign"], match["number"]
        if sign and text[0] in "+-":
            return np.nan
    text = BLANKS.sub("", text)
    if not NUMBER[style.decimal].fullmatch(text):
        return np.nan
    thousands = "," if style.decimal == "." else "."
    value = float(sign + text.replace(thousands, "").replace(style.decimal, "."))
    return value if np.isfinite(value) else np.nan


def _native(text: str) -> float:
    with suppress(ValueError):
        value = float(text.removeprefix(NATIVE))
        return value if np.isfinite(value) else np.nan
    return np.nan
