"""Data files of the user's own, read as numbers or refused in one line.  Nothing is ever unpickled or evaluated."""

from __future__ import annotations

import csv
import io
import math
import zipfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from backprop_files import UserError
from impls.interface import AnyArray, Array
from impls.names import counted

SUFFIXES = (".csv", ".npz")
#: Whole-number targets of a CSV file with more distinct values than this are numbers to predict, not classes.
MOST_CSV_CLASSES = 100
#: One-hot rows of more classes than this are not made: they are row numbers or counts, more likely than classes.
MOST_CLASSES = 1000
#: Cells that stand for a missing value, in small letters.
MISSING = ("", "nan", "-nan", "na", "n/a", "null", "none", "?")


def read(path: Path) -> tuple[Array, AnyArray]:
    """Inputs (N, features) as they stand in a file, and targets: integers (N,) are classes, float64 (N, outputs) numbers.

    Raises UserError for whatever is wrong with the file, with the line and the column or the array.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: data files end in {' or '.join(SUFFIXES)}, not '{suffix}'")
    content = _content(path)
    inputs, targets = (_csv if suffix == ".csv" else _npz)(path, content)
    if len(inputs) == 1:
        raise UserError(f"{path}: holds one row only; give more")
    return inputs, targets


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:  # ValueError: no path at all
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not content.strip():
        raise UserError(f"{path}: is empty; give rows of numbers")
    return content


def _check_varies(path: Path, name: str, column: AnyArray, classes: bool) -> None:
    if len(column) > 1 and (column == column[0]).all():
        told = "one class only; give two or more" if classes else "a constant, of which nothing can be learnt"
        raise UserError(f"{path}: {name} is {column[0]:g} in every row: {told}")


# --- CSV ------------------------------------------------------------------------------------------------------------


def _csv(path: Path, content: bytes) -> tuple[Array, AnyArray]:
    """The last column is the target."""
    text = _text(path, content)
    names, skip, width = _head(path, text)
    table = _quickly(text, skip)
    if table is None or table.shape[1] != width or not np.isfinite(table).all():
        table = _row_by_row(path, text, names)
    distinct, labels = np.unique(table[:, -1], return_inverse=True)
    classes = bool((distinct == np.floor(distinct)).all()) and len(distinct) <= MOST_CSV_CLASSES
    _check_varies(path, f"the target, {_column(width, names)},", table[:, -1], classes)
    return table[:, :-1], labels if classes else table[:, -1:]


def _text(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")  # spreadsheets put a mark in front
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: is no UTF-8 text; save it as CSV in UTF-8") from error


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, each with the number of the line it ends on."""
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            if len(row) > 1 or any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: is no CSV: {error}") from error


def _head(path: Path, text: str) -> tuple[list[str], int, int]:
    """Names of columns (none without a header), lines to skip, number of columns."""
    rows = _rows(path, text)
    line, first = next(rows, (1, [""]))
    if len(first) == 1:
        told = "has one column only; separate cells with commas, features first and the target last"
        raise UserError(f"{path}, line {line}: {told}")
    is_header = all(_number(cell) is None for cell in first) and not all(map(_is_missing, first))
    if not is_header:
        return [], 0, len(first)
    if next(rows, None) is None:
        raise UserError(f"{path}: holds a header and no rows; give rows of numbers below it")
    return [" ".join(name.split()) for name in first], line, len(first)


def _quickly(text: str, skip: int) -> Array | None:
    """The whole table at once, or None where some cell or row is not as it should be."""
    try:
        lines = io.StringIO(text, newline="")
        return np.loadtxt(lines, delimiter=",", comments=None, quotechar='"', skiprows=skip, ndmin=2)
    except ValueError:
        return None


def _row_by_row(path: Path, text: str, names: list[str]) -> Array:
    """The table cell by cell, which is slow, and tells where it is wrong."""
    rows = _rows(path, text)
    first_line, first = next(rows)
    table = []
    for line, row in rows if names else chain([(first_line, first)], rows):
        if len(row) != len(first):
            told = f"has {counted(len(row), 'cell')}, line {first_line} has {len(first)}; give every row as many"
            raise UserError(f"{path}, line {line}: {told}")
        table.append([_finite(path, line, number, cell, names) for number, cell in enumerate(row, 1)])
    return np.array(table)


def _finite(path: Path, line: int, number: int, cell: str, names: list[str]) -> float:
    value = _number(cell)
    if value is not None and math.isfinite(value):
        return value
    where, told = f"{path}, line {line}, {_column(number, names)}", repr(cell.strip()[:40])
    if _is_missing(cell):
        raise UserError(f"{where}: missing value {told}; fill it in, or leave the row out")
    if value is not None:
        raise UserError(f"{where}: {told} is not finite; give a number, or leave the row out")
    hint = "" if names or line > 1 else " (a header is a first line in which no cell is a number)"
    raise UserError(f"{where}: {told} is no number; write classes and categories as whole numbers{hint}")


def _column(number: int, names: list[str]) -> str:
    return f"column {number}" + (f" ('{names[number - 1][:40]}')" if names else "")


def _is_missing(cell: str) -> bool:
    return cell.strip().lower() in MISSING


def _number(cell: str) -> float | None:
    try:
        return None if "_" in cell else float(cell)  # 1_000 is Python's, not a data file's
    except ValueError:
        return None


# --- NPZ ------------------------------------------------------------------------------------------------------------

#: Names an array may have.
INPUTS, TARGETS = ("inputs", "X"), ("targets", "y")


def _npz(path: Path, content: bytes) -> tuple[Array, AnyArray]:
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise UserError(f"{path}: is no npz archive; write it with numpy.savez(file, inputs=…, targets=…)")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            inputs, targets = (_array(path, archive, names) for names in (INPUTS, TARGETS))
    except UserError:
        raise
    except Exception as error:  # a damaged archive may raise anything: numpy's, zipfile's, zlib's
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: is damaged, or too large: {reason}; write it anew") from error
    _check_shapes(path, inputs, targets)
    return _as_floats(path, "inputs", inputs), _targets(path, targets)


def _array(path: Path, archive: Any, names: tuple[str, str]) -> AnyArray:
    """The array of one of these names, of plain numbers."""
    name = next((name for name in names if name in archive.files), None)
    if name is None:
        there = ", ".join(f"'{found[:40]}'" for found in archive.files[:10]) or "nothing"
        raise UserError(f"{path}: has no array '{names[0]}' (or '{names[1]}'); it holds {there}")
    try:
        array = archive[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        told = "holds Python objects, which are never unpickled; save it as an array of numbers"
        raise UserError(f"{path}: array '{name}' {told}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        what = f"dtype {array.dtype}" if isinstance(array, np.ndarray) else "no array"
        raise UserError(f"{path}: array '{name}' is {what}; save it as an array of real numbers")
    return array


def _check_shapes(path: Path, inputs: AnyArray, targets: AnyArray) -> None:
    shapes = f"inputs have shape {inputs.shape}, targets {targets.shape}"
    if inputs.ndim != 2 or targets.ndim not in (1, 2) or len(inputs) != len(targets):
        raise UserError(f"{path}: {shapes}; give (rows, features) and (rows,) or (rows, outputs), with as many rows")
    if not (inputs.size and targets.size):
        raise UserError(f"{path}: {shapes}: it is empty; give rows of numbers")
    if targets.ndim == 2 and targets.dtype.kind != "f":
        raise UserError(f"{path}: {shapes}; whole numbers are classes, in shape (rows,); give other targets as floats")


def _targets(path: Path, targets: AnyArray) -> AnyArray:
    """Classes as they are, numbers as (N, outputs)."""
    if targets.dtype.kind == "f":
        numbers = _as_floats(path, "targets", targets)
        numbers = numbers.reshape(len(numbers), -1)
        for number, column in enumerate(numbers.T, 1):
            _check_varies(path, f"targets, column {number},", column, classes=False)
        return numbers
    count = len(np.unique(targets))
    if count > MOST_CLASSES:
        told = f"targets are {count:,} different whole numbers, more than {MOST_CLASSES:,} classes"
        raise UserError(f"{path}: {told}; give numbers to predict as floats")
    _check_varies(path, "targets", targets, classes=True)
    return targets


def _as_floats(path: Path, name: str, array: AnyArray) -> Array:
    with np.errstate(over="ignore"):  # of a wider type: infinite, and refused
        numbers = array.astype(np.float64)
    if not np.isfinite(numbers).all():
        _refuse(path, name, numbers)
    return numbers


def _refuse(path: Path, name: str, numbers: Array) -> NoReturn:
    row, *column = map(int, np.argwhere(~np.isfinite(numbers))[0])
    where = f"{name}, row {row + 1}" + (f", column {column[0] + 1}" if column else "")
    value = numbers[(row, *column)]
    what = "missing value nan; fill it in" if np.isnan(value) else f"{value:g} is not finite; give a number"
    raise UserError(f"{path}: {where}: {what}, or leave the row out")
