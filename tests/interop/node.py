"""Node.js for the tests of a peer in another language: found, and its one package installed. No test lives here.

`python -m tests.interop.node` gets what is missing; `make test` runs it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
EXAMPLES: Final = ROOT / "examples" / "node"
CACHE: Final = Path(sys.prefix) / "node"
_BIN: Final = Path(sys.prefix) / "bin"
HOW: Final = (
    "These tests need Node.js 18 or newer, and there is no `node` on PATH. `make test` gets it into .venv; by hand: "
    "pip install -e '.[node]' && python -m tests.interop.node, or install Node.js from your system's packages."
)


class NodeMissingError(Exception):
    """Node.js, or its package, is not here; the text says how to get it."""


def executable(name: str = "node") -> str:
    """The path of node or npm: of the environment that runs the tests, else of PATH. Raises NodeMissingError."""
    found = shutil.which(name, path=os.fspath(_BIN)) or shutil.which(name)
    if found is None:
        raise NodeMissingError(HOW)
    return found


def install() -> Path:
    """The folder node_modules with the package `zeromq`, whose binaries are prebuilt. Raises NodeMissingError."""
    wanted = json.loads((EXAMPLES / "package.json").read_text())["dependencies"]["zeromq"]
    modules = CACHE / "node_modules"
    if not (modules / "zeromq" / "package.json").exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
        npm = executable("npm")
        path = os.pathsep.join([os.fspath(Path(npm).parent), os.environ.get("PATH", "")])
        done = subprocess.run(
            [npm, "install", "--prefix", os.fspath(CACHE), *flags, f"zeromq@{wanted}"],
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
            env=os.environ | {"PATH": path},
        )
        if done.returncode:
            raise NodeMissingError(f"npm could not install zeromq@{wanted} into {CACHE}: {done.stderr[-2_000:]}")
    return modules


def lay_out(folder: Path) -> Path:
    """The programs of examples/node and the peer of these tests in one folder, with their package, as who copies them has it."""
    modules = install()
    for source in (*EXAMPLES.glob("*.mjs"), EXAMPLES / "package.json", ROOT / "tests" / "interop" / "peer.mjs"):
        shutil.copy(source, folder)
    (folder / "node_modules").symlink_to(modules)
    return folder


def main() -> None:
    """Get what is missing."""
    try:
        executable()
    except NodeMissingError:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-e", f"{ROOT}[node]"], check=True)
    install()


if __name__ == "__main__":
    main()
