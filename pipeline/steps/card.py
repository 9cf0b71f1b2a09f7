"""The model card: what a model was made of and how good it is, for people (HTML) and programs (JSON).

Everything in it that comes from the data (names of columns and classes) is escaped and bounded. The page is one
file without scripts and without links to elsewhere.
"""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pictures
from common import json_text

LISTED_MAX = 50
STYLE = """
body { font: 15px/1.5 sans-serif; color: #222; max-width: 760px; margin: 2em auto; padding: 0 1em; }
h1 { margin-bottom: 0; } h2 { margin-top: 2em; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; } th, td { text-align: left; padding: 2px 14px 2px 0; vertical-align: top; }
th { font-weight: 600; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
.good { color: #22773a; } .bad { color: #b3261e; } .small { color: #555; font-size: 13px; }
svg { max-width: 100%; height: auto; }
"""
SPLITS = {
    "random": "a quarter of the rows, drawn at random",
    "group": "the rows of a quarter of the values of column {column}",
    "time": "the latest quarter by column {column}",
}
NAMES = {
    "roc_auc": "area under the ROC curve",
    "average_precision": "average precision",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1_macro": "F1, mean over classes",
    "r2": "R²",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
}


def write_card(
    folder: Path,
    *,
    title: str,
    request: str,
    report: dict[str, Any],
    data: dict[str, Any],
    training: dict[str, Any],
) -> None:
    """Write card.json and card.html; the same model has the same bytes."""
    card = {
        "schema_version": 1,
        "data_set": title,
        "request": request,
        "data": data,
        "training": training,
        "evaluation": report,
    }
    (folder / "card.json").write_text(json_text(card), encoding="utf-8")
    (folder / "card.html").write_text(page(card), encoding="utf-8")


def page(card: dict[str, Any]) -> str:
    """Return the card as an HTML page."""
    report, data, training = card["evaluation"], card["data"], card["training"]
    title = f"Model of {text(card['data_set'])}"
    sections = [
        f"<h1>{title}</h1>",
        f'<p class="small">predicts {text(data["target"])} ({report["problem"]}) · '
        f"request {text(card['request'])}</p>",
        *_quality(report),
        *_errors(report),
        *_importance(report),
        *_data(data),
        *_training(training),
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(sections) + "\n</body></html>\n"
    )


def text(value: Any) -> str:
    """Return something from the data as text of a page: without control characters, not too long, escaped."""
    written = "".join(character if character.isprintable() else "�" for character in str(value))
    return escape(written if len(written) <= 120 else written[:119] + "…")


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table; numbers are aligned to the right, None is a dash."""
    titles = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    return f"<table><tr>{titles}</tr>{body}</table>"


def _cell(value: Any) -> str:
    if value is None:
        return '<td class="number">–</td>'
    if isinstance(value, int):
        return f'<td class="number">{value:,}</td>'
    if isinstance(value, float):
        return f'<td class="number">{pictures.figure(value)}</td>'
    return f"<td>{text(value)}</td>"


def _quality(report: dict[str, Any]) -> list[str]:
    quality, baseline = report["quality"], report["baseline"]
    name = NAMES.get(quality["metric"], quality["metric"])
    better = report["verdict"]["beats_baseline"]
    verdict = (
        '<p class="good">Clearly better than the baseline on the rows that were held out.</p>'
        if better
        else '<p class="bad">Not clearly better than the baseline: the model is not registered.</p>'
    )
    bar = "The bar spans the metric in 95 % of resamples of these rows. " if report["interval"] else ""
    group = report.get("classification_metrics") or report.get("regression_metrics") or {}
    return [
        "<h2>Quality</h2>",
        verdict,
        pictures.interval(name, quality["value"], baseline["value"], report["interval"]),
        f'<p class="small">Measured on {report["rows"]:,} rows that the model has not seen. {bar}The baseline '
        f"always predicts {escape(baseline['rule'])}.</p>",
        table(
            ("metric", "value"), [(NAMES.get(metric, metric), values["value"]) for metric, values in group.items()]
        ),
    ]


def _errors(report: dict[str, Any]) -> list[str]:
    parts = []
    if "confusion" in report:
        parts += [
            "<h2>Classes</h2>",
            pictures.matrix(report["confusion"]["classes"], report["confusion"]["counts"]),
        ]
        columns = ("class", "trained_on", "tested_on", "recall", "precision")
        parts.append(
            table(
                ("class", "rows trained on", "rows tested on", "recall", "precision"),
                [[row[column] for column in columns] for row in report["classes"]],
            )
        )
    if "residuals" in report:
        off = report["residuals"]
        parts += ["<h2>Errors</h2>", pictures.scatter(off["pairs"])]
        parts += [
            "<p>Predicted minus true value:</p>",
            pictures.histogram(off["histogram"]["edges"], off["histogram"]["counts"]),
            table(("share of rows", "at most"), list(off["quantiles"].items())),
        ]
    return parts


def _importance(report: dict[str, Any]) -> list[str]:
    falls = [(fall["feature"], fall["fall"], pictures.BLUE) for fall in report["importance"]]
    if not falls:
        return []
    name = NAMES.get(report["quality"]["metric"], report["quality"]["metric"])
    return [
        "<h2>What the model uses</h2>",
        f"<p>By how much worse the {escape(name)} gets when a column's values are shuffled among rows. Columns "
        "that say the same share it.</p>",
        pictures.bars(falls, "importance by permutation"),
    ]


def _data(data: dict[str, Any]) -> list[str]:
    split = data["split"]
    how = SPLITS[split["kind"]].format(column=repr(split["column"]))
    rows = [
        ("rows used", data["rows"]),
        ("of these trained on", split["train"]),
        ("of these tested on", split["test"]),
        ("tested on", how),
        *((f"rows left out: {reason}", count) for reason, count in data["dropped"].items()),
        *((f"{kind} columns", count) for kind, count in data["kinds"].items()),
        ("SHA-256 of the files", data["sha256"]),
    ]
    parts = ["<h2>Data</h2>", table(("", ""), rows)]
    if data["left_out"]:
        columns = list(data["left_out"].items())
        parts += ["<p>Columns that nothing is learnt from:</p>", table(("column", "why"), columns[:LISTED_MAX])]
    if data["notes"]:
        parts.append("<p>How it was read:</p><ul>")
        parts += [f"<li>{escape(note)}</li>" for note in data["notes"]]
        parts.append("</ul>")
    return parts


def _training(training: dict[str, Any]) -> list[str]:
    rows = [
        ("algorithm", training["algorithm"]),
        ("estimator", training["estimator"]),
        *((name, value) for name, value in training["hyperparameters"].items()),
        *((name, version) for name, version in training["versions"].items()),
    ]
    return [
        "<h2>Training</h2>",
        table(("", ""), rows),
        '<p class="small">All other hyperparameters have the defaults of the version of scikit-learn.</p>',
        "<h2>Before it is approved</h2><ul>"
        "<li>Is each column known at the time of a prediction? One that is not makes the quality above wrong.</li>"
        "<li>Will new rows be like these? The model knows nothing of values it has not seen.</li>"
        "<li>Which of the errors above costs most? The metric weighs them by the rows alone.</li></ul>",
    ]
