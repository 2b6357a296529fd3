from __future__ import annotations

import pytest

from zbroker.bench.processes import BenchFailed, Worker, seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"), [("0:00.52", 0.52), ("12:03.10", 723.1), ("01:02:03", 3_723), ("2-01:00:00", 176_400)]
)
def test_cpu_time_of_ps_is_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == pytest.approx(seconds)


def test_what_a_process_uses_is_told_while_it_runs_only() -> None:
    with Worker("serve-bare", kind="rep", address="tcp://127.0.0.1:0", binds=True) as worker:
        worker.said()
        used = worker.usage()
        assert used.cpu_s > 0
        assert used.resident_bytes > 1_000_000
        worker.kill()
        with pytest.raises(BenchFailed, match="serve-bare"):
            worker.usage()
