"""The drawing of the house: arrows, sizes, mirrors, and words that nobody leaves behind."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for package in ("patterns", "zbroker") for path in (ROOT / package).rglob("*.py"))
TEXTS = (".py", ".md", ".toml", ".json", ".cfg", ".txt", "Makefile", ".yml", ".sh")
FUNCTION_LINES_MAX = 60
FILE_LINES_MAX = 500
ARROWS = "from importlinter.cli import lint_imports_command; lint_imports_command()"

# Sans-I/O packages are mirrored file by file; the folder of their tests stands on the right.
MIRRORS = {
    "patterns/wire": "tests/unit/wire",
    "patterns/core": "tests/unit/core_clients",
    "zbroker/core": "tests/unit/core",
    "zbroker/store": "tests/unit/store",
}
# Shells and processes are tested as a whole, with real sockets or as commands; the folder of those tests stands on the right.
WHOLES = {
    "patterns/io": "tests/sockets",
    "patterns/roles": "tests/sockets",
    "patterns/sync": "tests/sockets",
    "patterns/aio": "tests/aio",
    "zbroker/processes": "tests/sockets",
    "zbroker/cli": "tests/unit/cli",
    "zbroker/bench": "tests/unit/bench",
    "zbroker/bench/ends": "tests/unit/bench",
    "zbroker/bench/rows": "tests/sockets",
    "zbroker/demo": "tests/examples",
    "zbroker/testing": "tests/unit",
    "zbroker": "tests/unit",
}
WITHOUT_A_TEST_OF_THEIR_OWN = {
    "zbroker/core/effects.py": "types only",
    "zbroker/core/events.py": "types only; test_broker.py has what makes them",
    "zbroker/core/requests.py": "the books of services.py, tested there",
    "zbroker/store/disk.py": "a Protocol; test_os_disk and test_virtual_disk hold its two implementations to it",
}
# Who may touch a socket besides patterns/io/turn.py, and which.
SOCKETS_OF_OTHERS = {
    "patterns/io/sockets.py": "libzmq's monitor, an inproc PAIR that carries no message of a peer",
    "patterns/io/guard.py": "libzmq's monitor, likewise",
    "zbroker/processes/loop.py": "the bell, an OS socket pair without ZeroMQ",
    "zbroker/processes/line.py": "a socketpair of the OS between broker and sidecar, without ZeroMQ",
    "zbroker/bench/": "measures bare pyzmq beside us",
    "zbroker/demo/programs.py": "shows a peer that has nothing but pyzmq and JSON",
}
SOCKET_CALLS = re.compile(
    r"(recv|send_multipart|send_json|send_string|send_pyobj|send_serialized|recvmsg|sendmsg|sendall)"
)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in SOURCES:
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout: nothing says which files belong to the project")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name.endswith(TEXTS)]
    return [path for path in paths if path.is_file()]


def test_import_arrows_go_one_way():
    ran = subprocess.run([sys.executable, "-c", ARROWS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_functions_are_short():
    offenders = [
        f"{name_of(path)}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
        if node.end_lineno - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert not offenders, f"above {FUNCTION_LINES_MAX} lines: {offenders}"


def test_files_are_short():
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert not {name: lines for name, lines in lengths.items() if lines > FILE_LINES_MAX}


@pytest.mark.parametrize("package", MIRRORS)
def test_each_source_file_of_an_engine_has_its_test(package):
    missing = []
    for path in sorted((ROOT / package).glob("*.py")):
        mirror = ROOT / MIRRORS[package] / f"test_{path.name}"
        if path.stem != "__init__" and not mirror.exists() and name_of(path) not in WITHOUT_A_TEST_OF_THEIR_OWN:
            missing.append(f"{name_of(path)} -> {name_of(mirror)}")
    assert not missing


def test_every_package_is_mirrored_or_tested_as_a_whole():
    folders = {name_of(path.parent) for path in SOURCES if path.stem != "__init__"}
    assert folders <= set(MIRRORS) | set(WHOLES)
    for package in folders & set(WHOLES):
        assert list((ROOT / WHOLES[package]).rglob("test_*.py")), package


def test_no_excuse_outlives_its_file():
    excused = [*WITHOUT_A_TEST_OF_THEIR_OWN, *SOCKETS_OF_OTHERS]
    assert [name for name in excused if not (ROOT / name).exists()] == []
    for name in WITHOUT_A_TEST_OF_THEIR_OWN:
        mirror = ROOT / MIRRORS[str(Path(name).parent)] / f"test_{Path(name).name}"
        assert not mirror.exists(), f"{name} has a test now"


def test_nothing_is_left_for_later():
    later = re.compile(
        "|".join(rf"\b{word}\b" for word in ("TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error"))
    )
    found = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in tracked()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if later.search(line)
    ]
    assert not found


def test_every_module_begins_with_what_lives_there():
    missing = [name_of(path) for path, tree in trees() if tree.body and not ast.get_docstring(tree)]
    assert not missing


def _touches_a_socket(node: ast.AST) -> bool:
    """recv*, send_multipart and the like on anything; send on what is called a socket."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    owner = ast.unparse(node.func.value).lower().rpartition(".")[2]
    if node.func.attr == "send":
        return "sock" in owner
    return SOCKET_CALLS.match(node.func.attr) is not None and owner != "turn"


def test_nobody_but_the_turn_sends_or_receives_on_sockets():
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path, tree in trees()
        for node in ast.walk(tree)
        if _touches_a_socket(node) and name_of(path) != "patterns/io/turn.py"
    ]
    assert [place for place in found if not place.startswith(tuple(SOCKETS_OF_OTHERS))] == []


def test_the_rule_about_sockets_sees_what_it_forbids():
    def calls(text: str) -> bool:
        return any(_touches_a_socket(node) for node in ast.walk(ast.parse(text)))

    assert all(map(calls, ["socket.send(b'')", "self._socket.send(b'')", "x.recv()", "pair.recv_multipart()"]))
    assert not any(map(calls, ["turn.recv(socket)", "session.send(header, now)", "turn.send(plug.socket, frames)"]))


def test_links_in_documents_lead_somewhere():
    broken = [
        f"{name_of(path)}: {target}"
        for path in tracked()
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
        if "://" not in target and not target.startswith("mailto:") and not (path.parent / target).exists()
    ]
    assert not broken


def test_decisions_have_a_title_and_say_why():
    for path in tracked():
        if path.name != "DECISIONS.md":
            continue
        text = path.read_text(encoding="utf-8")
        assert text.startswith("# "), name_of(path)
        assert len(re.findall(r"^## ", text, re.MULTILINE)) >= 1, name_of(path)


def test_no_path_of_one_machine_is_in_a_tracked_file():
    places = re.compile(rf"(?<![\w.])(/home/(?!u\b)\w+|/Users/\w+|/ro[o]t/|{re.escape(str(ROOT))}\b)")
    found = [
        f"{name_of(path)}:{number}: {line.strip()[:100]}"
        for path in tracked()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if places.search(line) and path != Path(__file__)
    ]
    assert not found


def test_settings_stand_in_pyproject_alone():
    others = ["setup.py", "setup.cfg", "tox.ini", "pytest.ini", ".importlinter", "ruff.toml", "mypy.ini"]
    assert [name for name in others if (ROOT / name).exists()] == []
