"""Tables of boxes, one person per line, as spreadsheets and detectors write them."""

import codecs
import contextlib
import csv
import io
import math
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flowprior.files.limits import require_path
from flowprior.files.report import Report

__all__ = ["COLUMNS", "Box", "read_boxes"]

COLUMNS = ("image", "x", "y", "width", "height")
"""Columns of a table without a header: the image, the upper left corner and the sides in pixels."""

SPELLINGS = {
    **{name: name for name in COLUMNS},
    **dict.fromkeys(("imgname", "image_name", "filename", "file_name", "file", "name"), "image"),
    "left": "x",
    "top": "y",
    "w": "width",
    "h": "height",
}
DELIMITERS = ",;\t|"
BYTE_ORDER_MARKS = (  # UTF-32 first: its mark starts with that of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
WITHOUT_MARK = ("utf-8", "cp1252")
SAMPLE = 100  # lines to detect the delimiter from


@dataclass(frozen=True)
class Box:
    """The box of one person.

    Args:
        image: Name of the image.
        x: Left edge, pixels.
        y: Upper edge, pixels.
        width: Pixels.
        height: Pixels.
    """

    image: str
    x: float
    y: float
    width: float
    height: float


def read_boxes(path: Path | str) -> tuple[list[Box], Report]:
    """Read a table of boxes.

    Args:
        path: A text file in UTF-8, UTF-16 or UTF-32 with a byte-order mark, in UTF-8 without, or in
            Windows-1252. Fields are separated by commas, semicolons, tabs or bars; with semicolons
            decimals may have a comma. Without a header a line is ``image,x,y,width,height``; a
            header names these columns, in any order and among others.

    Returns:
        The boxes in the order of the file; and the report, which names the lines left out.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not text, its header lacks a column, or no line is a box.
    """
    path = require_path(path)
    lines = [
        (number, line)
        for number, line in enumerate(io.StringIO(_text(path), newline=None), 1)
        if line.strip(string.whitespace + DELIMITERS)
    ]
    separator = re.fullmatch(r"sep=(.)", lines[0][1].strip()) if lines else None
    if separator:  # Excel's own first line
        lines = lines[1:]
    if not lines:
        raise ValueError(f"{path}: expected a line {','.join(COLUMNS)} for each box, found none")
    dialect = _dialect([line for _, line in lines[:SAMPLE]], separator and separator[1])
    report = Report(str(path), "boxes", unit="person")
    columns: Sequence[str] = COLUMNS
    first = _fields(lines[0][1], dialect)
    if not any(_number(field, dialect) is not None for field in first[1:]) and _is_header(first):
        columns = _named(first, path)
        lines = lines[1:]
    boxes = []
    for number, line in lines:
        report.rows += 1
        box = _box(_fields(line, dialect), columns, dialect)
        if isinstance(box, Box):
            boxes.append(box)
        else:
            report.leave_out(box, [f"line {number}"])
    report.kept = len(boxes)
    if not boxes:
        raise ValueError(f"{path}: expected a line {','.join(COLUMNS)} for each box\n{report}")
    return boxes, report


def _text(path: Path) -> str:
    content = path.read_bytes()
    marked = [name for mark, name in BYTE_ORDER_MARKS if content.startswith(mark)]
    for encoding in marked[:1] or WITHOUT_MARK:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise ValueError(f"{path}: expected a text file in UTF-8, UTF-16 with its mark or Windows-1252")


def _dialect(lines: Sequence[str], delimiter: str | None) -> csv.Dialect | type[csv.Dialect]:
    """The dialect in which most lines are boxes: the sniffer's, or the usual one of a delimiter."""

    def usual(mark: str) -> type[csv.Dialect]:
        return type("Usual", (csv.excel,), {"delimiter": mark})

    if delimiter:
        return usual(delimiter)
    tried: list[type[csv.Dialect]] = [usual(mark) for mark in DELIMITERS]
    with contextlib.suppress(csv.Error):  # too few lines, or names with odd quotes
        tried.append(csv.Sniffer().sniff("\n".join(lines), DELIMITERS))

    def worth(dialect: type[csv.Dialect]) -> tuple[int, int]:
        rows = [_fields(line, dialect) for line in lines]
        numbers = [sum(_number(f, dialect) is not None for f in row[1:]) for row in rows]
        return sum(count >= 4 for count in numbers), max(map(len, rows))

    return max(tried, key=worth)


def _fields(line: str, dialect: csv.Dialect | type[csv.Dialect]) -> list[str]:
    """The fields of one line; empty if it is not a line of a table."""
    # Line by line: a quote that is never closed costs its own line, not the rest of the file.
    try:
        return [field.strip() for field in next(csv.reader([line], dialect), [])]
    except csv.Error:
        return []


def _number(field: str, dialect: csv.Dialect | type[csv.Dialect]) -> float | None:
    try:
        return float(field.replace(",", ".") if dialect.delimiter != "," else field)
    except ValueError:
        return None


def _is_header(fields: Sequence[str]) -> bool:
    """Whether a line without numbers names columns, and is not a damaged box."""
    return len(fields) > 1 and all(fields) and not re.search(r"\.\w{3,4}$", fields[0])


def _named(fields: Sequence[str], path: Path) -> list[str]:
    """Map the columns of a header to `COLUMNS`; other names stay."""
    lower = [field.lstrip("#").strip().lower() for field in fields]
    columns = [SPELLINGS.get(field, field) for field in lower]
    if any(columns.count(name) != 1 for name in COLUMNS):
        raise ValueError(
            f"{path}: expected a header with {', '.join(COLUMNS)} once each (the corner, then the "
            f"sides, in pixels), found {', '.join(fields)[:200]}"
        )
    return columns


def _box(
    fields: Sequence[str], columns: Sequence[str], dialect: csv.Dialect | type[csv.Dialect]
) -> Box | str:
    """The box of a line, or the reason why the line is not a box."""
    if len(fields) != len(columns):
        return f"line that is not {','.join(columns)}"[:200]
    row = dict(zip(columns, fields, strict=True))
    numbers = [_number(row[name], dialect) for name in COLUMNS[1:]]
    x, y, width, height = (math.nan if number is None else number for number in numbers)
    if not row["image"] or None in numbers:
        return f"line that is not {','.join(columns)}"[:200]
    if not (all(map(math.isfinite, (x, y, width, height))) and min(width, height) > 0):
        return "box of no size"
    return Box(row["image"], x, y, width, height)
