"""`zbroker store`: a look at a data folder, and ways in and out of it, without a broker."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click
import msgspec

from patterns.wire.errors import ZbrokerError
from patterns.wire.messages import Codec
from patterns.wire.words import counted
from zbroker.cli.bodies import is_json, line_of
from zbroker.cli.command import ClientCommand
from zbroker.cli.exits import FAILED, UNAVAILABLE, UNHEALTHY, end
from zbroker.cli.lines import Lines
from zbroker.cli.progress import progress_bar
from zbroker.cli.standard_streams import StandardStreamFailed
from zbroker.cli.suggestions import Group
from zbroker.cli.words import cleaned, say
from zbroker.processes.clocks import wall_ms

if TYPE_CHECKING:
    from patterns.wire.records import Damage
    from zbroker.processes.transfer import Exported, Importer
    from zbroker.store.verify import FolderReport

_FOLDER = click.Path(path_type=Path)
# A body of 1 MiB in msgpack may stand as JSON of six characters a byte (\u0000, or "false,"); and what stands beside it.
_LINE_BYTES_MAX: Final = 8 << 20

_ASK_VERIFY = "`zbroker store verify` tells what that is"


class StoreCommand(ClientCommand):
    """A command on a folder: what is wrong with the folder is one line, and 69."""

    def invoke(self, context: click.Context) -> Any:
        """Run it; faults of the store and of the system become exit statuses."""
        from zbroker.store.faults import JournalError

        try:
            return super().invoke(context)
        except JournalError as error:
            end(UNAVAILABLE, str(error))
        except (BrokenPipeError, StandardStreamFailed):
            raise
        except OSError as error:
            end(UNAVAILABLE, f"{error.filename or 'the folder'}: {error.strerror or error}")


@click.group(cls=Group)
def store() -> None:
    """Look at a data folder, and get messages in and out of it, without a broker."""


@store.command(cls=StoreCommand, short_help="Check every record of a data folder.")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def verify(folder: Path, as_json: bool) -> None:
    """Check every record and header of a data folder, byte by byte, and change none.

    What only fills up, behind a record and to the end of a commit, holds nothing of anybody's and is not judged.

    No broker may run on it: of a running one, `zbroker status` tells what it found. A tail that is torn was never
    confirmed, and is no damage.

    Exit status: 0 whole; 10 damaged, a checkpoint that cannot be used, or a copy that broke off; 69 no journal, or not to
    be read.

    \b
    zbroker store verify ./zbroker-data --json | jq .damage
    """
    from zbroker.store.os_disk import OsDisk
    from zbroker.store.verify import verify_folder

    total = sum(path.stat().st_size for path in folder.glob("*.seg"))
    with progress_bar("verify", total) as step:
        report = verify_folder(OsDisk(read_only=True), os.fspath(folder), step)
    click.echo(line_of(fields_of(folder, report)) if as_json else "\n".join(map(cleaned, lines_of(folder, report))))
    if not report.is_whole:
        places = len(report.damage or report.known) + len(report.cut_short)
        places += report.unusable
        end(UNHEALTHY, f"{folder} is damaged: {counted(places, 'place')}; a broker starts on it, and serves the rest")


@store.command(cls=StoreCommand, short_help="Copy a data folder, of a running broker too.")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.argument("target", metavar="TARGET", type=_FOLDER)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def backup(folder: Path, target: Path, as_json: bool) -> None:
    """Make TARGET a copy of a data folder, whether a broker runs on it or not.

    It holds everything that was confirmed before the command began. On the same file system full segments are hard
    links, which takes no time and no space until the broker gives them back; only the newest one, of at most 64 MiB, is
    copied. To restore, start a broker on it: zbroker run --data TARGET.

    Exit status: 0 made; 69 TARGET is there already, or DIR is no journal, or the disk refused.

    \b
    zbroker store backup ./zbroker-data /backups/$(date +%F)
    """
    from zbroker.store.backup import back_up
    from zbroker.store.os_disk import OsDisk

    total = sum(path.stat().st_size for path in folder.glob("*.seg"))
    with progress_bar("backup", total) as step:
        made = back_up(OsDisk(), os.fspath(folder), os.fspath(target), step, OsDisk(read_only=True))
    fields = {"target": os.fspath(target), **msgspec.structs.asdict(made)}
    words = f"{target}: {made.linked} files linked, {made.copied} copied ({made.bytes_copied} bytes)"
    click.echo(line_of(fields) if as_json else words)


@store.command(cls=StoreCommand, short_help="Print messages as lines of JSON.")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("--stream", metavar="NAME", help="Only this stream.")
@click.option("--raw", is_flag=True, help="Every body as body_base64: the bytes as they are stored.")
def export(folder: Path, stream: str | None, raw: bool) -> None:
    """Print every message of a data folder as a line of JSON, in the order in which they were stored.

    No broker may run on it (make a backup, and export that). A body that JSON cannot express is body_base64: its bytes in
    the codec that is named. What damage took is left out.

    Exit status: 0 all is printed; 10 something is left out, and why; 69 no journal, or not to be read.

    \b
    zbroker store export ./zbroker-data --stream orders > orders.jsonl
    """
    from zbroker.processes.transfer import export as messages_of
    from zbroker.store.os_disk import OsDisk

    out = sys.stdout.buffer

    def print_one(message: Exported) -> None:
        out.write(line_of(_exported(message, raw)) + b"\n")

    total = sum(path.stat().st_size for path in folder.glob("*.seg"))
    with progress_bar("export", 0 if sys.stdout.isatty() else total) as step:
        left = messages_of(OsDisk(read_only=True), os.fspath(folder), stream, print_one, step)
    out.flush()
    if left.places:
        say(f"{folder} is damaged: {counted(left.places, 'place')}; what is lost there is left out. {_ASK_VERIFY}")
    if left.batches:
        end(UNHEALTHY, f"{counted(left.batches, 'batch', 'batches')} of {folder} could not be understood; left out")
    if left.places:
        raise SystemExit(UNHEALTHY)


@store.command("import", cls=StoreCommand, short_help="Append messages from lines of JSON.")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.argument(
    "file", metavar="[FILE|-]", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), default="-"
)
@click.option("--stream", metavar="NAME", help="Into this stream, whatever the lines say.")
def import_(folder: Path, file: Path, stream: str | None) -> None:
    """Append messages to the streams of a data folder: lines as `zbroker store export` prints them.

    A line needs `stream` and `body` or `body_base64`; `key`, `headers`, `topic`, `codec` (json) and `published_at` are kept.
    Messages get new offsets, in their order; into an empty folder those are the ones that they had, unless some are
    missing. No broker may run on the folder, which is made if it is absent.

    A line has 8 MiB at most.

    Exit status: 0 all are stored; 1 a line cannot be, and those before it are; 69 the folder cannot be used, or its disk is
    full, and it says how many are stored.

    \b
    zbroker store import ./new-data orders.jsonl
    """
    from zbroker.processes.transfer import Importer
    from zbroker.store.faults import JournalFull
    from zbroker.store.journal import FileJournal
    from zbroker.store.os_disk import OsDisk

    is_input = os.fspath(file) == "-"
    journal = FileJournal(OsDisk(), os.fspath(folder), random_bytes=os.urandom, wall_ms=wall_ms)
    size = 0 if is_input else file.stat().st_size
    with progress_bar("import", size) as step, _source(file) as source:
        importer = Importer(journal)
        try:
            with importer:
                _take_in(importer, Lines(source, _LINE_BYTES_MAX), stream, step)
        except JournalFull as error:
            end(UNAVAILABLE, f"{error}; {counted(importer.stored, 'message')} stored before: go on with the next one")
    say(f"{counted(importer.stored, 'message')} stored in {folder}")
    for note in importer.notes:
        say(note)
    if importer.damaged:
        places = counted(importer.damaged, "place")
        say(f"{folder} was damaged before: {places}; what is lost there is not back. {_ASK_VERIFY}")


def _take_in(importer: Importer, lines: Lines, stream: str | None, step: Callable[[int], None]) -> None:
    """Each line that is not blank; one that is no message ends the command, and those before it are stored."""
    from zbroker.processes.transfer import imported

    taken = 0
    try:
        for line in lines:
            step(lines.bytes_taken - taken)
            taken = lines.bytes_taken
            if text := line.strip():
                importer.add(imported(text, stream, wall_ms()))
    except ZbrokerError as error:
        importer.close()
        end(FAILED, f"line {lines.number}: {error}; {counted(importer.stored, 'message')} before it stored")


@contextmanager
def _source(file: Path) -> Iterator[BinaryIO]:
    if os.fspath(file) == "-":
        yield sys.stdin.buffer
        return
    with file.open("rb") as source:
        yield source


def _exported(message: Exported, raw: bool) -> dict[str, Any]:
    fields = {name: value for name, value in msgspec.structs.asdict(message).items() if value is not None}
    encoded = fields.pop("body")
    fields["codec"] = message.codec.value
    if message.codec is Codec.JSON and not raw:
        line = msgspec.json.format(encoded, indent=-1) if b"\n" in encoded or b"\r" in encoded else encoded
        return {**fields, "body": msgspec.Raw(line)}  # as it was written, 1.0 and integers of 70 bits included
    if message.codec is Codec.MSGPACK and not raw:
        with suppress(msgspec.MsgspecError, UnicodeError, RecursionError):
            body = msgspec.msgpack.decode(encoded)
            if is_json(body):
                return {**fields, "body": body}
    return {**fields, "body_base64": base64.b64encode(encoded).decode()}


def fields_of(folder: Path, report: FolderReport) -> dict[str, Any]:
    """The report as --json prints it."""
    segments = [{**msgspec.structs.asdict(part), "reclaimable": part.reclaimable} for part in report.segments]
    return {
        "folder": os.fspath(folder),
        "whole": report.is_whole,
        "records": report.records,
        "bytes": report.bytes,
        "next_index": report.next_index,
        "torn_bytes": report.torn_bytes,
        "reclaimable": report.reclaimable,
        "segments": segments,
        "damage": [msgspec.to_builtins(hole) for hole in report.damage],
        "known": [msgspec.to_builtins(hole) for hole in report.known],
        "cut_short": report.cut_short,
        "checkpoints": [msgspec.to_builtins(one) for one in report.checkpoints],
    }


def lines_of(folder: Path, report: FolderReport) -> Iterator[str]:
    """The report for people: a line a segment, then what is lost, exactly."""
    for part in report.segments:
        span = f"records {part.first_index}..{part.last_index}" if part.records else "no records"
        more = f", {part.nonzero_after_end} bytes behind the end" if part.state == "torn" else ""
        more += f", {part.reclaimable} bytes reclaimable" if part.reclaimable else ""
        more += f", {part.slack_faults} unreadable fillers" if part.slack_faults else ""
        yield f"{part.name}  {part.state:8}  {span}, {part.bytes} bytes{more}"
    yield from _holes("damage", report.damage)
    yield from _holes("known since an earlier open", report.known)
    yield from report.cut_short
    for one in report.checkpoints:
        yield f"{one.name}  {'whole' if one.why_not is None else one.why_not}"
    verdict = "whole" if report.is_whole else "damaged"
    yield f"{folder}: {verdict}, {report.records} records, {report.bytes} bytes, next index {report.next_index}"


def _holes(title: str, holes: Sequence[Damage]) -> Iterator[str]:
    for hole in holes:
        yield (
            f"{title}: records {hole.first_index}..{hole.last_index} lost, from byte {hole.offset} of segment "
            f"{hole.segment} on ({hole.reason})"
        )
        for one in hole.ranges:
            last = one.base_offset + max(one.count, 1) - 1
            what = f"offsets {one.base_offset}..{last} of stream {one.stream_id}" if one.count else "operations"
            yield f"  record {one.index}: {what}"
        if hole.lost_bytes:
            yield f"  {hole.lost_bytes} bytes whose headers are unreadable: any stream may have lost messages here"
