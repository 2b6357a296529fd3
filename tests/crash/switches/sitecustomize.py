"""Imported by every interpreter that has this folder in PYTHONPATH, hence by a broker's own children too: small journals and
wrong clocks for crash tests. What is not set is left alone.

    CRASH_SEGMENT_BYTES       of a segment, so that a short run has many
    CRASH_CHECKPOINT_RECORDS  after so many records a checkpoint is due
    CRASH_PIECE_BYTES         of a checkpoint's state that are cut in one turn, so that a small state takes many
    CRASH_COMPACTION_BYTES    a step's budget, so that a small segment takes many; it is looked for one twenty times a second
    CRASH_CLOCK               what time.time_ns says instead: seconds since 1970, or `a,b,..`: another one every 100 ms
"""

import os
import time

if "CRASH_CLOCK" in os.environ:
    _SECONDS = [int(one) for one in os.environ["CRASH_CLOCK"].split(",")]
    _BEGAN_NS = time.monotonic_ns()

    def _wrong_time_ns() -> int:
        passed_ns = time.monotonic_ns() - _BEGAN_NS
        return _SECONDS[passed_ns // 100_000_000 % len(_SECONDS)] * 1_000_000_000 + passed_ns

    time.time_ns = _wrong_time_ns

if "CRASH_SEGMENT_BYTES" in os.environ:
    from zbroker.store import segment  # before anything copies the name out of it

    segment.SEGMENT_BYTES = int(os.environ["CRASH_SEGMENT_BYTES"])

if "CRASH_CHECKPOINT_RECORDS" in os.environ:
    from zbroker.store import checkpoint

    checkpoint.CHECKPOINT_RECORDS = int(os.environ["CRASH_CHECKPOINT_RECORDS"])

if "CRASH_PIECE_BYTES" in os.environ:
    from zbroker.core import checkpoint as state

    state.CHUNK_BYTES = int(os.environ["CRASH_PIECE_BYTES"])

if "CRASH_COMPACTION_BYTES" in os.environ:
    from zbroker.store import compactor

    compactor.STEP_BYTES = int(os.environ["CRASH_COMPACTION_BYTES"])
    compactor.MOVES_A_STEP = 4
    compactor.LOOK_US = 50_000
