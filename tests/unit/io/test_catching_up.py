"""A driver that has not been looked at for a while takes all that has come meanwhile, and not one piece of news a time."""

from __future__ import annotations

from typing import Any

import pytest

from patterns.io.driver import _TURNS_MAX, Driver


class Links:
    """So many messages are there; a turn takes one, for each is news."""

    def __init__(self, left: int) -> None:
        self.left = left

    def turn(self, named: object) -> None:
        self.left -= 1

    def is_readable(self) -> bool:
        return self.left > 0


@pytest.mark.parametrize(("there", "left"), [(1, 0), (20, 0), (_TURNS_MAX + 5, 5)])
def test_it_takes_turns_until_nothing_is_there_but_not_for_ever(there: int, left: int) -> None:
    driver: Any = Driver.__new__(Driver)
    driver._links, driver.followers, driver._leader = Links(there), [], None
    driver.catch_up()
    assert driver._links.left == left
