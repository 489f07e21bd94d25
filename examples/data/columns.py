"""Columns of a file, checked on access: numbers of one shape, flags, text."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flowprior.files.report import Report

__all__ = ["BoolArray", "Columns", "FloatArray", "TextArray", "as_array", "num_entries"]

FloatArray: TypeAlias = NDArray[np.float32]
BoolArray: TypeAlias = NDArray[np.bool_]
TextArray: TypeAlias = NDArray[np.str_]


class Columns:
    """Arrays of one length by name; any of them may be missing.

    Args:
        content: The columns.
        source: Name of the source in messages.
        place: Name of a row in reports, by its index.
        length_of: The column that determines the number of rows.

    Raises:
        ValueError: That column is missing or has no length.
    """

    def __init__(
        self,
        content: Mapping[str, object],
        source: str,
        place: Callable[[int], str] = "row {}".format,
        length_of: str = "imgname",
    ) -> None:
        self.place = place
        self._content = content
        self._source = source
        self._read = {length_of}
        if length_of not in content:
            found = ", ".join(sorted(map(str, content))) or "none"
            raise ValueError(f"{source}: expected the key {length_of}, found {found}")
        length = num_entries(content[length_of])
        if length is None:
            raise ValueError(f"{source}: expected {length_of} to have an entry per row, got one")
        self._length, self._length_of = length, length_of

    def __len__(self) -> int:
        return self._length

    def __contains__(self, key: object) -> bool:
        return key in self._content

    @property
    def unread(self) -> list[str]:
        """Names of the columns that were not read, sorted."""
        return sorted(map(str, self._content.keys() - self._read))

    def numbers(self, key: str, *shape: int) -> FloatArray:
        """A column of numbers.

        Args:
            key: Its name.
            shape: Expected shape of a row; -1 accepts any length.

        Returns:
            (N, *shape) float32, infinity where a number overflows; zeros, of length 1 for -1,
            if the column is missing.

        Raises:
            ValueError: The column has another shape or does not hold numbers.
        """
        self._read.add(key)
        if key not in self._content:
            return np.zeros((len(self), *(abs(size) for size in shape)), np.float32)
        raw = self._array(key)
        expected = ", ".join(["N", *("K" if size < 0 else str(size) for size in shape)])
        expected = f"({expected}{',' if not shape else ''}) with N = {len(self)}"
        if raw.dtype.kind not in "fiubO":
            raise ValueError(
                f"{self._source}: expected {key} to hold numbers of shape {expected}, "
                f"got {raw.shape} of {raw.dtype}"
            )
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                column = np.array(raw.tolist() if raw.dtype.kind == "O" else raw, np.float32)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{self._source}: expected {key} to hold numbers of shape {expected} ({error})"
            ) from error
        fits = column.ndim == 1 + len(shape) and all(
            size in (-1, found) for size, found in zip(shape, column.shape[1:], strict=True)
        )
        if not fits or len(column) != len(self):
            raise ValueError(
                f"{self._source}: expected {key} of shape {expected} as in {self._length_of}, "
                f"got {column.shape}"
            )
        return column

    def largest(self, key: str) -> FloatArray:
        """The largest number of each row of a column (N,) or (N, K), as (N,) float32."""
        if np.ndim(self._array(key)) == 2:
            return self.numbers(key, -1).max(axis=1, initial=-np.inf)
        return self.numbers(key)

    def flags(self, key: str, report: Report) -> BoolArray:
        """A column of 0 and 1; all False if it is missing.

        Args:
            key: Its name.
            report: Receives other entries, which count as 0.

        Returns:
            (N,) bool.

        Raises:
            ValueError: As `numbers`.
        """
        column = self.numbers(key)
        unknown = np.flatnonzero(~np.isin(column, (0, 1)))
        report.ignore(f"{key} other than 0 and 1", map(self.place, unknown.tolist()))
        return column == 1

    def text(self, key: str, missing: str = "") -> TextArray:
        """A column of text, including bytes written by Python 2.

        Args:
            key: Its name.
            missing: Text of every row if the column is missing.

        Returns:
            (N,) str; "" where the file has neither text nor bytes.

        Raises:
            ValueError: The column has another shape.
        """
        self._read.add(key)
        if key not in self._content:
            return np.full(len(self), missing)
        column = self._array(key)
        if column.shape != (len(self),):
            raise ValueError(
                f"{self._source}: expected {key} of shape (N,) with N = {len(self)} as in "
                f"{self._length_of}, got {column.shape}"
            )
        return np.array([_decoded(entry) for entry in column.tolist()], np.str_).reshape(len(self))

    def _array(self, key: str) -> NDArray[np.generic]:
        if key not in self._content:
            return np.zeros(len(self))
        return as_array(self._content[key], key, self._source)


def num_entries(value: object) -> int | None:
    """Length of a list or array; None for anything else."""
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim):
        return len(value)
    return None


def as_array(value: object, key: str, source: str) -> NDArray[Any]:
    """An entry of a file as an array.

    Raises:
        ValueError: Its rows have different shapes.
    """
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"{source}: expected the rows of {key} to be of one shape ({error})"
        ) from error


def _decoded(entry: object) -> str:
    if isinstance(entry, bytes):
        try:
            return entry.decode("utf-8")
        except UnicodeDecodeError:
            return entry.decode("latin-1")
    return entry if isinstance(entry, str) else ""
