"""How a sidecar process begins. What it does then is tested through whole brokers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.processes import until
from zbroker.processes.spawn import start_sidecar


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("theirs", [None, "1000000"])
def test_it_keeps_the_memory_that_it_frees_unless_somebody_has_said_otherwise(
    theirs: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if theirs is not None:
        monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", theirs)
    line = start_sidecar()
    environment = Path(f"/proc/{line.pid}/environ")  # empty until the process has got it
    until(lambda: bool(environment.read_bytes()), what="an environment")
    variables = environment.read_text(encoding="utf-8", errors="replace").split("\0")
    line.close()
    assert f"MALLOC_TRIM_THRESHOLD_={theirs or 8 << 20}" in variables
    assert f"MALLOC_MMAP_THRESHOLD_={4 << 20}" in variables
