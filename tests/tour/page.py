"""The page ``docs/how-to/troubleshooting.md``, written from the current messages.

python -m tests.tour.page
"""

from pathlib import Path

from tests.tour import library, programs

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "troubleshooting.md"
TOUR = library.MISTAKES | programs.MISTAKES
INTRODUCTION = """\
# Troubleshooting

This page lists common mistakes and the message that flowprior gives for each. A test makes every
mistake and compares the message with this page. In the tables, `prior` has `context_features=8`,
SMPL's 24 joints and layout `"columns"`; `context` has shape `(5, 8)` and `theta` `(5, 24, 6)`.

Every call checks shapes, dtypes, devices and names. Values are checked on the CPU only, because the
check would synchronise a GPU. Units and layouts cannot be inferred from shapes; the first few calls
check them and give a warning, never an error. Those of 2D keypoints are checked in every call, on
every device, and raise ValueError.

Three mistakes cannot be detected:

* Layout `"rows"` instead of `"columns"`, or the reverse: read with the wrong one, every rotation
  becomes its inverse, which is also a rotation.
* A body file of the wrong gender.
* A posterior that is older than the weights: create a new one, `prior(context)`, after every
  optimiser step.
"""


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for group, mistakes in TOUR.items():
        rows = "\n".join(each.row(each.message()) for each in mistakes)
        head = "| mistake | error | message |\n|---|---|---|"
        parts.append(f"## {group}\n\n{head}\n{rows}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
