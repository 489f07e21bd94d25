"""Each mistake on the troubleshooting page produces the message that the page shows."""

import pytest

from tests.tour.page import INTRODUCTION, PAGE, TOUR

EVERY = [each for mistakes in TOUR.values() for each in mistakes]


@pytest.mark.parametrize("mistake", EVERY, ids=lambda mistake: mistake.did.replace("`", ""))
def test_the_message_helps_and_the_page_has_it(mistake):
    message = mistake.message()
    missing = [words for words in mistake.says if words not in message]
    assert not missing, message
    assert mistake.row(message) in PAGE.read_text(encoding="utf-8"), (
        "python -m tests.tour.page writes the page"
    )


def test_the_page_has_nothing_else():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert sum(line.startswith("| ") for line in lines) == len(EVERY) + len(TOUR)
    assert "\n".join(lines).startswith(INTRODUCTION.strip())
