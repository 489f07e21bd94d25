"""The page ``docs/how-to/troubleshooting.md``, written from the current messages.

python -m tests.tour.page
"""

from pathlib import Path

from tests.tour import library, programs

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "troubleshooting.md"
TOUR = library.MISTAKES | programs.MISTAKES
INTRODUCTION = """\
# What went wrong?

Mistakes that everybody makes once, and what flowprior says to each. The messages are those of the
present version: a test makes every mistake and compares. `prior` has `context_features=8`, SMPL's
24 joints and layout `"columns"`; `context` is `(5, 8)`, `theta` `(5, 24, 6)`.

Shapes, dtypes, devices and names are looked at in every call. Values are looked at on the CPU
alone: a GPU would have to be waited for. Units and layouts, which no shape tells, are looked at in
the first few calls and give a warning, never an error.

Three mistakes nobody can see. Layout `"rows"` for `"columns"`, or the reverse: what one reads as a
rotation is the inverse of it to the other, which is a rotation as well. A body file of the wrong
gender. A posterior older than the weights: make a new one, `prior(context)`, after every step of an
optimiser.
"""


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for group, mistakes in TOUR.items():
        rows = "\n".join(each.row(each.message()) for each in mistakes)
        head = "| what you did | what comes | message |\n|---|---|---|"
        parts.append(f"## {group}\n\n{head}\n{rows}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
