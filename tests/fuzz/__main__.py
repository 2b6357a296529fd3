"""`python -m tests.fuzz TARGET [SECONDS]`: coverage-guided fuzzing of one target with atheris, seeded from tests/vectors.

Inputs that make a finding are printed in hexadecimal, and kept in $ZBROKER_FUZZ_FOLDER/TARGET if that is set, as is
the corpus. `python -m tests.fuzz TARGET --input HEX` runs one input again, without atheris.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

SECONDS: Final = float(os.environ.get("ZBROKER_FUZZ_S", "60"))
INPUT_S_MAX: Final = 20  # a busy machine must not look like a hang; the dearest input takes milliseconds
RSS_MIB_MAX: Final = 1_024


def fuzz(name: str, seconds: float, folder: Path) -> None:
    """Run until the time is over, or a finding; libFuzzer ends the process itself."""
    import atheris

    with atheris.instrument_imports(include=["patterns", "zbroker"], enable_loader_override=False):
        from tests.fuzz.mutations import mutated
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    seeds = target.seeds()
    corpus, crashes = folder / "corpus", folder / "crashes"
    corpus.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number:04d}").write_bytes(seed)
    arguments = [
        name, str(corpus), f"-max_total_time={int(seconds)}", f"-max_len={target.bytes_max}", f"-timeout={INPUT_S_MAX}",
        f"-rss_limit_mb={RSS_MIB_MAX}", f"-artifact_prefix={crashes}/", "-print_final_stats=1", "-verbosity=1",
    ]  # fmt: skip

    def mutate(data: bytes, size_max: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.randrange(2):
            return atheris.Mutate(data, size_max)  # libFuzzer's own, which knows what the code compares with
        return mutated(data, chance, seeds)[:size_max]

    atheris.Setup(arguments, target.run, custom_mutator=mutate)
    atheris.Fuzz()


def _report(folder: Path) -> None:
    for path in sorted(folder.glob("crashes/*")):
        print(f"finding {path.name}: {path.read_bytes().hex()}", file=sys.stderr)


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0 without a finding."""
    name = arguments[0]
    if arguments[1:2] == ["--input"]:
        from tests.fuzz.targets import TARGETS

        TARGETS[name].run(bytes.fromhex(arguments[2]))
        return 0
    seconds = float(arguments[1]) if arguments[1:] else SECONDS
    kept = os.environ.get("ZBROKER_FUZZ_FOLDER")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(kept or scratch, name)
        folder.mkdir(parents=True, exist_ok=True)
        child = os.fork()  # libFuzzer ends its process without a word to Python; the parent prints what it found
        if not child:
            fuzz(name, seconds, folder)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        _report(folder)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
