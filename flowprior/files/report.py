"""Reports of readers: the number of rows, the rows left out, and the reasons.

Every reader of this folder returns a `Report` with its data. Readers raise only if a file is
unreadable as a whole, and never return faulty values: a faulty row is *left out*; a faulty value in
an otherwise usable row (one keypoint, one flag) is *ignored*, and its confidence set to 0.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Finding", "Report"]

EXAMPLES = 3


@dataclass
class Finding:
    """One kind of fault.

    Args:
        count: Number of occurrences.
        examples: Where, for the first few: "row 17", "frame 3 of 00.json, person 1".
    """

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, places: Iterable[str]) -> None:
        """Count a fault at each of some places."""
        for place in places:
            self.count += 1
            if len(self.examples) < EXAMPLES:
                self.examples.append(place)


@dataclass
class Report:
    """What one file, or several together, hold.

    Args:
        source: The file or folder.
        kind: What it was read as, for people: "ProHMR annotations".
        unit: What a row is: "person", "frame", "group".
        rows: Rows in the file.
        kept: Usable rows.
        facts: Further information by name: "images": "images/ beside the file".
        left_out: Rows left out, by reason. A row counts once, under its first fault.
        ignored: Ignored values in usable rows, by reason.
        warnings: Suspicious rows that are used, by reason.
    """

    source: str
    kind: str
    unit: str = "row"
    rows: int = 0
    kept: int = 0
    facts: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, Finding] = field(default_factory=dict)
    ignored: dict[str, Finding] = field(default_factory=dict)
    warnings: dict[str, Finding] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether nothing was left out or ignored, and no warning was issued."""
        return not self.left_out and not self.ignored and not self.warnings

    def leave_out(self, reason: str, places: Iterable[str]) -> None:
        """Count rows left out; no entry for zero rows."""
        _add(self.left_out, reason, places)

    def ignore(self, reason: str, places: Iterable[str]) -> None:
        """Count ignored values; no entry for zero values."""
        _add(self.ignored, reason, places)

    def warn(self, reason: str, places: Iterable[str]) -> None:
        """Count suspicious rows that are used; no entry for zero rows."""
        _add(self.warnings, reason, places)

    def absorb(self, other: "Report") -> None:
        """Add the report on another file of the same kind, without its facts."""
        self.rows += other.rows
        self.kept += other.kept
        for mine, theirs in (
            (self.left_out, other.left_out),
            (self.ignored, other.ignored),
            (self.warnings, other.warnings),
        ):
            for reason, finding in theirs.items():
                known = mine.setdefault(reason, Finding())
                known.count += finding.count
                room = EXAMPLES - len(known.examples)
                known.examples += [f"{other.source}: {place}" for place in finding.examples[:room]]

    def __str__(self) -> str:
        """The report as text: several lines without a newline at the end."""
        lines = [
            f"{self.source}",
            f"  {self.kind}: {_counted(self.rows, self.unit)}, {self.kept} usable",
            *(f"  {name}: {fact}" for name, fact in self.facts.items()),
        ]
        for title, findings, unit in (
            ("left out", self.left_out, self.unit),
            ("ignored", self.ignored, "value"),
            ("warning", self.warnings, self.unit),
        ):
            for reason, finding in findings.items():
                where = ", ".join(finding.examples)
                more = ", ..." if finding.count > len(finding.examples) else ""
                lines.append(
                    f"  {title}: {_counted(finding.count, unit)}, {reason} ({where}{more})"
                )
        return "\n".join(lines)


def _add(findings: dict[str, Finding], reason: str, places: Iterable[str]) -> None:
    found = Finding()
    found.add(places)
    if not found.count:
        return
    known = findings.setdefault(reason, Finding())
    known.count += found.count
    known.examples += found.examples[: EXAMPLES - len(known.examples)]


def _counted(number: int, unit: str) -> str:
    plural = {"person": "people"}.get(unit, f"{unit}s")
    return f"{number} {unit if number == 1 else plural}"
