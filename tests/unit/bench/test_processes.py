from __future__ import annotations

import pytest

from zbroker.bench.processes import Usage, seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"), [("0:00.52", 0.52), ("12:03.10", 723.1), ("01:02:03", 3_723), ("2-01:00:00", 176_400)]
)
def test_cpu_time_of_ps_is_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == pytest.approx(seconds)


def test_use_adds_up_and_what_is_not_known_stays_unknown() -> None:
    assert Usage(1.0, 10, 5) + Usage(0.5, 20, 7) == Usage(1.5, 30, 12)
    assert (Usage(1.0, 10, 5) + Usage(0.5, 20)).written_bytes is None
