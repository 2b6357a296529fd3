"""Production code with a fault planted in it, for proof that the simulation would find it. Only tests use it."""

from __future__ import annotations

from zbroker.processes.carrier import Carrier
from zbroker.store.journal import FileJournal


class Defects:
    """What a run is made of; the classes of production unless a defect replaces one."""

    journal: type[FileJournal] = FileJournal
    carrier: type[Carrier] = Carrier
