"""What the garbage collector does not look at holds no error: raised, it holds its frames, and they hold it; neither would ever go."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
RAISED_ANEW = {"Accepted", "PostedRole"}  # keep their error as it was before it was raised, and raise another one
_STRUCT = re.compile(r"^class (\w+)\([^)]*gc=False[^)]*\):\n((?:(?:    .*)?\n)*)", re.MULTILINE)


def test_no_struct_without_garbage_collection_holds_an_error() -> None:
    holders = set()
    structs = 0
    for path in [*ROOT.glob("patterns/**/*.py"), *ROOT.glob("zbroker/**/*.py")]:
        for name, body in _STRUCT.findall(path.read_text()):
            structs += 1
            if re.search(r"^    \w+: .*(Error|Exception)\b", body, re.MULTILINE):
                holders.add(name)
    assert structs > 20
    assert holders == RAISED_ANEW
