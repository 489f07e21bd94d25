"""What reading a file found: how many rows there are, which were left out, and why.

Every reader of this folder returns a `Report` beside its data. Nothing bad is fatal unless the file
cannot be read at all, and nothing bad is used: a row without which the rest makes sense is *left
out*; a value of a row that is kept (one keypoint, one flag) is *ignored*, its confidence set to 0.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Finding", "Report"]

EXAMPLES = 3


@dataclass
class Finding:
    """One kind of fault.

    Args:
        count: How often it was found.
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
        kept: Rows that can be used.
        facts: What else people want to know, by name: "images": "images/ beside the file".
        left_out: Rows that are not used, by the reason. A row counts once, under its first fault.
        ignored: Values that are not used in rows that are, by the reason.
        warnings: Rows that are used but look wrong, by the reason.
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
        """Whether nothing was left out or ignored, and there is no warning."""
        return not self.left_out and not self.ignored and not self.warnings

    def leave_out(self, reason: str, places: Iterable[str]) -> None:
        """Count rows that are not used; nothing is noted if there are none."""
        _add(self.left_out, reason, places)

    def ignore(self, reason: str, places: Iterable[str]) -> None:
        """Count values that are not used; nothing is noted if there are none."""
        _add(self.ignored, reason, places)

    def warn(self, reason: str, places: Iterable[str]) -> None:
        """Count rows that are used but look wrong; nothing is noted if there are none."""
        _add(self.warnings, reason, places)

    def absorb(self, other: "Report") -> None:
        """Add what another file of the same kind holds; its facts are left aside."""
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
        """The report as people read it, several lines without a newline at the end."""
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
