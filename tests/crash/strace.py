"""What a program did to one folder, read from strace's account of it: calls in order, with their data. No test lives here."""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

WRITES: Final = ("pwrite64", "pwritev", "pwritev2")
# Whatever else changes a file is listed as well: what is met and not understood must not pass unseen.
OTHERS: Final = ("write", "writev", "ftruncate", "truncate", "copy_file_range", "sendfile", "splice")
_NAMES: Final = ("rename", "renameat", "renameat2", "unlink", "unlinkat", "link", "linkat", "mkdir", "mkdirat")
_SYNCS: Final = ("fdatasync", "fsync", "sync_file_range", "syncfs")
_TRACED: Final = (*WRITES, *OTHERS, *_NAMES, *_SYNCS, "openat", "fallocate")
_CALL: Final = re.compile(r"(\w+)\((.*)\) += (-?\d+|\?)(?:[ <].*)?", re.DOTALL)
_HANDLE: Final = re.compile(r"\d+<((?:\\x[0-9a-f]{2})*)>(\(deleted\))?")
_PATH: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_VECTOR: Final = re.compile(r'iov_base="([^"]*)"')
_UNFINISHED: Final = " <unfinished ...>"
_RESUMED: Final = re.compile(r"<\.\.\. \w+ resumed>(.*)", re.DOTALL)


@dataclass(frozen=True)
class Call:
    """A system call on the folder, or a mark of the program about itself.

    Attributes:
        begun, done: places in the account, of all threads and processes.
        name: of the system call without its variants: write, sync, sync_dir, create, allocate, rename, unlink, link, mkdir;
            or `mark`.
        path: what it is about.
        target: the new name.
        data: bytes written.
        number: where they were written; the size that was allocated.
        is_known: False when the process died in it, so that nobody knows what became of it.
    """

    begun: int
    done: int
    name: str
    path: str
    target: str = ""
    data: bytes = b""
    number: int = 0
    is_known: bool = True


def why_not() -> str | None:
    """Why system calls cannot be recorded here; None when they can."""
    if sys.platform != "linux" or shutil.which("strace") is None:
        return "there is no strace on this machine"
    tried = subprocess.run(["strace", "-f", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return None if tried.returncode == 0 else f"strace is not permitted here: {tried.stderr.decode()[-200:]}"


def recorder(account: Path) -> tuple[str, ...]:
    """The command in front of a program whose calls, and its children's, are to be recorded."""
    calls = ",".join(_TRACED)
    return ("strace", "-f", "-y", "--seccomp-bpf", "-xx", "-s", "100000000", "-e", f"trace={calls}", "-o", str(account))


def calls_on(account: Path, folder: Path, marks: Path) -> list[Call]:
    """What was done to files in the folder, and to it and the one above, and what was written to the file of marks; in the order in which it began."""
    found = []
    for begun, done, text in _whole_lines(account):
        match = _CALL.fullmatch(text)
        if match is None or (match[3].startswith("-") and match[1] not in WRITES):
            continue  # a signal, an exit; or it failed
        call = _call(begun, done, match[1], match[2], match[3], str(folder), str(marks))
        if call is not None:
            found.append(call)
    return sorted(found, key=lambda call: call.begun)


def _whole_lines(account: Path) -> Iterator[tuple[int, int, str]]:
    """Calls that were interrupted by others in the account are put together again."""
    open_calls: dict[str, tuple[int, str]] = {}
    place = 0
    with account.open(encoding="ascii") as lines:
        for place, line in enumerate(lines):
            process, _, text = line.rstrip("\n").partition(" ")
            text = text.lstrip()
            if text.endswith(_UNFINISHED):
                open_calls[process] = place, text.removesuffix(_UNFINISHED)
            elif resumed := _RESUMED.fullmatch(text):
                begun, head = open_calls.pop(process)
                yield begun, place, head + resumed[1]
            else:
                yield place, place, text
    for begun, head in open_calls.values():
        yield begun, place, f"{head}) = ?"


def _call(begun: int, done: int, name: str, arguments: str, result: str, folder: str, marks: str) -> Call | None:
    is_known = result != "?"
    if name in (*_NAMES, "openat"):
        return _naming(begun, done, name, arguments, folder, is_known)
    handle = _HANDLE.match(arguments)
    path = _text(handle[1]) if handle is not None else ""
    if path == marks and name == "write":
        return Call(begun, done, "mark", path, data=_bytes(arguments.split('"')[1]))
    if path == posixpath.dirname(folder) and name == "fsync":
        return Call(begun, done, "sync_dir", path, is_known=is_known)
    if not _is_within(path, folder) or handle is None or handle[2]:
        return None
    if name in WRITES:
        data = b"".join(map(_bytes, _VECTOR.findall(arguments))) if "v" in name else _bytes(arguments.split('"')[1])
        numbers = arguments.rsplit("]" if "v" in name else '"', 1)[1].split(",")
        length = len(data) if not is_known else max(0, int(result))
        return Call(begun, done, "write", path, data=data[:length], number=int(numbers[2]), is_known=is_known)
    if name in ("fdatasync", "fsync"):
        kind = "sync_dir" if path == folder else "sync"
        return Call(begun, done, kind, path, is_known=is_known)
    assert name == "fallocate", f"{name} on {path}: the rebuilding of images does not know it"
    return Call(begun, done, "allocate", path, number=sum(map(int, arguments.split(", ")[-2:])), is_known=is_known)


def _naming(begun: int, done: int, name: str, arguments: str, folder: str, is_known: bool) -> Call | None:
    paths = [_text(one) for one in _PATH.findall(arguments)]
    if not paths or not _is_within(paths[-1], folder):
        return None
    if name == "openat":
        if "O_CREAT" not in arguments:
            return None
        assert "O_TRUNC" not in arguments, f"{paths[0]} is truncated: the rebuilding of images does not know it"
    kind = "create" if name == "openat" else re.sub(r"at2?$", "", name)
    return Call(begun, done, kind, paths[0], paths[-1], is_known=is_known)


def _is_within(path: str, folder: str) -> bool:
    return path == folder or posixpath.dirname(path) == folder


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _text(text: str) -> str:
    return _bytes(text).decode(errors="surrogateescape")
