from __future__ import annotations

import re

import msgspec
import pytest

from patterns.wire import errors as wire_errors
from patterns.wire import limits
from patterns.wire.configs import GroupConfig, StreamConfig, told
from patterns.wire.messages import KINDS, Columns, Role
from tests.unit.wire import spec
from zbroker.core.requests import ANSWERS_OWED_MAX
from zbroker.core.topics import PATTERN_BYTES_ALL_MAX, PATTERN_BYTES_MAX, PATTERNS_MAX

HEADER_NAMES = {"NO_SESSION": "NoSessionHeader", "ERROR": "ErrorHeader"}
OPTIONAL_IN_SPEC = {"count"}  # one body: SPEC.md says so in words, the code in a default


def header_name(name: str) -> str:
    return HEADER_NAMES.get(name, name.capitalize())


def fields_of(body: str) -> set[str]:
    """The top-level field names of a header as the spec draws it."""
    flat = body
    while (shorter := re.sub(r"(\{[^{}]*\}|\[[^\[\]]*\])", "", flat)) != flat:
        flat = shorter
    return {field.split(":")[0].strip() for field in flat.split(",") if field.strip(" .")}


def drawn() -> list[tuple[str, set[str]]]:
    found = []
    for name, body in re.findall(r"\b([A-Z_]{4,}) +\{((?:[^{}]|\{[^{}]*\})*)\}", spec.SPEC):
        if not body.endswith("..") and name in {name.upper() for name in spec.kinds().values()}:
            found.append((name, fields_of(body)))
    return found


def test_every_kind_of_the_spec_is_in_the_code_and_the_reverse():
    assert {kind.decode(): header.__name__ for kind, header in KINDS.items()} == {
        kind: header_name(name) for kind, name in spec.kinds().items()
    }


def test_every_kind_stands_in_a_line_of_kinds_once_or_shared():
    listed = re.findall(r"`(.)` [A-Z_]+", "\n".join(re.findall(r"^Kinds: .*$", spec.SPEC, re.MULTILINE)))
    assert sorted({kind for kind in listed if listed.count(kind) > 1}) == ["l"]  # LOST: of topics, and of streams


def test_reserved_kinds_are_not_in_the_code():
    reserved = re.findall(r"`(\w)`", spec.SPEC.partition("## 12. Reserved")[2].partition("Header fields")[0])
    assert len(reserved) == 8
    assert not {kind.encode() for kind in reserved} & set(KINDS)


@pytest.mark.parametrize(("name", "drawn_fields"), drawn(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_header_that_the_spec_draws_has_only_fields_of_the_code(name, drawn_fields):
    header = next(header for header in KINDS.values() if header.__name__ == header_name(name))
    assert drawn_fields <= set(header.__struct_fields__)


def test_every_field_of_the_code_is_drawn_in_the_spec():
    fields: dict[str, set[str]] = {}
    for name, drawn_fields in drawn():
        fields.setdefault(header_name(name), set()).update(drawn_fields)
    for header in KINDS.values():
        undrawn = set(header.__struct_fields__) - fields.get(header.__name__, set()) - OPTIONAL_IN_SPEC
        assert not undrawn, header.__name__


def test_every_error_of_the_spec_is_in_the_code_and_the_reverse():
    leaves = {number: error.name for number, error in wire_errors.BY_NUMBER.items() if number % 100 != 99}
    assert leaves == spec.errors()


def test_every_column_of_the_spec_is_in_the_code_and_the_reverse():
    names = [name for cells in spec.rows("| column |")[1:] for name in re.findall(r"`(\w+)`", cells[0])]
    assert sorted(names) == sorted(field.name for field in msgspec.structs.fields(Columns))


def test_every_role_of_the_spec_is_in_the_code_and_the_reverse():
    line = re.search(r"`role` is ([^.]*)\.", spec.SPEC)
    assert line
    assert set(re.split(r", | or ", line[1])) == {role.value for role in Role}


@pytest.mark.parametrize(
    ("name", "stated", "value"),
    [
        ("body", "1 MiB", limits.BODY_BYTES_MAX == limits.MIB),
        ("batch", "64 KiB target", limits.BATCH_BYTES_TARGET == 64 * limits.KIB),
        ("batch", "body + 64 KiB", limits.BATCH_BYTES_MAX == limits.BODY_BYTES_MAX + 64 * limits.KIB),
        ("messages in a batch", "65,536", limits.BATCH_MESSAGES_MAX == 65_536),
        ("header, columns", "64 KiB, 1 MiB", (limits.HEADER_BYTES_MAX, limits.COLUMNS_BYTES_MAX) == (65_536, 1 << 20)),
        ("key, headers and id of one message", "64 KiB", limits.ATTRIBUTES_BYTES_MAX == 64 * limits.KIB),
        ("key, headers and id of one message", "128 KiB", limits.COLUMNS_BYTES_TARGET == 128 * limits.KIB),
        ("depth of a header", "32", limits.DEPTH_MAX == 32),
        ("depth of a body that is translated", "128", limits.BODY_DEPTH_MAX == 128),
        ("delay of a message, a nack, a backoff", "365 days", limits.DELAY_MS_MAX == 365 * 86_400_000),
        ("leases in `resume`, ranges in a SETTLE", "10,000", limits.RANGES_MAX == 10_000),
        ("errors, PONGs and RESULTs that a peer has not read", "256,", limits.REPLIES_UNREAD_MAX == 256),
        ("errors, PONGs and RESULTs that a peer has not read", "1,024 ", limits.REPLIES_UNREAD_CUT == 1_024),
        ("answers that a replier owes for requests that nobody waits for any more", "4,096", ANSWERS_OWED_MAX == 4_096),
        (
            "patterns of one session",
            "65,536, and 64 MiB",
            (PATTERNS_MAX, PATTERN_BYTES_MAX) == (65_536, 64 * limits.MIB),
        ),
        ("what the patterns of all sessions cost", "256 MiB", PATTERN_BYTES_ALL_MAX == 256 * limits.MIB),
        ("HELLOs on one connection", "256", limits.REPLIES_UNREAD_MAX == 256),
        (
            "parts of one reply ahead of what C had",
            "1,024 and 1 MiB",
            (limits.PARTS_AHEAD_MAX, limits.PART_BYTES_AHEAD_MAX) == (1_024, limits.MIB),
        ),
        ("a plain publisher's messages that wait inside libzmq", "32,", limits.PLAIN_WAITING_MESSAGES_MAX == 32),
        ("a plain subscriber's prefixes", "64 KiB,", limits.PLAIN_PREFIXES_BYTES_MAX == 64 * limits.KIB),
        ("a plain subscriber's prefixes", "of all 512 KiB", limits.PLAIN_PREFIXES_BYTES_MAX_OF_ALL == 512 * limits.KIB),
        ("a plain subscriber's prefixes", "one: 1 KiB", limits.PLAIN_PREFIX_BYTES_MAX == limits.KIB),
        (
            "prefixes of a connection to a Publisher that binds (Linux, TCP)",
            "1 MiB, each counted with 16 bytes more, of all 2 MiB",
            (limits.PEER_PREFIXES_BYTES_MAX, limits.PEER_PREFIXES_BYTES_MAX_OF_ALL) == (limits.MIB, 2 * limits.MIB),
        ),
        ("subscribers of a Publisher peer to peer", "65,536", limits.SUBSCRIBERS_MAX == 65_536),
        ("a plain subscriber's unread messages", "16,384", limits.PLAIN_UNREAD_MESSAGES_MAX == 16_384),
        (
            "replies, parts, and errors behind parts, that wait for a requester's credit",
            "8 MiB",
            limits.REPLIES_HELD_BYTES_MAX == 8 * limits.MIB,
        ),
        ("batches that a peer has not read", "8 MiB", limits.UNREAD_BYTES_MAX == 8 * limits.MIB),
    ],
)
def test_a_limit_of_the_spec_is_the_codes(name, stated, value):
    assert stated in spec.limit(name)
    assert value


def test_the_spec_lists_no_limit_that_this_test_forgets():
    assert len(spec.rows("| limit |")) - 1 == 22


@pytest.mark.parametrize(
    ("sentence", "value"),
    [
        ("is 1 to 255 bytes of UTF-8", limits.NAME_BYTES_MAX == 255),
        ("modulo 64.", limits.CHANNELS == 64),
        ("integers in headers below 2^53", limits.INTEGER_MAX == 2**53 - 1),
        ("ZMTP heartbeats 2 s / 6 s", (limits.HEARTBEAT_MS, limits.EXPIRY_MS) == (2_000, 6_000)),
        ("DETACHED session of a consumer for 2 s", limits.GRACE_MS == 2_000),
        ("need wait no more than 60 s", limits.RETRY_AFTER_MS_MAX == 60_000),
        ("remembers the last 64 batches", limits.PRODUCER_BATCHES_REMEMBERED == 64),
    ],
)
def test_a_figure_in_the_specs_prose_is_the_codes(sentence, value):
    assert sentence in spec.SPEC
    assert value


def _as_told(cell):
    """A default of a table as a value: `code`, or what JSON would have; several fields may share a row."""
    values = [one.strip().strip("`").replace(",", "") for one in cell.split(", ")]
    words = {"null": None, "true": True, "false": False, "[]": [], '""': ""}
    return [words[one] if one in words else float(one) if one.isdigit() else one for one in values]


@pytest.mark.parametrize(
    ("kind", "named", "nth"), [(StreamConfig, {"name": "s"}, 0), (GroupConfig, {"stream": "s", "name": "g"}, 1)]
)
def test_the_fields_of_a_configuration_are_the_codes_with_their_defaults(kind, named, nth):
    tables = [table.partition("\n\n")[0] for table in spec.SPEC.split("\n| field | default | |\n")[1:]]
    found = {}
    for line in tables[nth].splitlines()[1:]:
        names, default, _ = (cell.strip() for cell in line.strip("|").split("|", 2))
        fields = [name.strip().strip("`") for name in names.split(", ")]
        values = _as_told(default)
        found.update(zip(fields, values * len(fields) if len(values) == 1 else values, strict=False))
    expected = {name: value for name, value in told(kind(**named)).items() if name not in named}
    assert found == expected
