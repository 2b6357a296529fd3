"""Lines come one by one, in bounded memory."""

import io
import os

import pytest

from patterns.wire.errors import BadBody, TooLarge
from patterns.wire.limits import BODY_BYTES_MAX
from zbroker.cli.lines import Lines, at_line, bodies_of


class Trickle(io.BytesIO):
    """Gives a few bytes a read, and counts what was asked for."""

    def read1(self, size: int | None = -1, /) -> bytes:
        return super().read(3)


@pytest.mark.parametrize("stream", [io.BytesIO, Trickle])
@pytest.mark.parametrize(
    ("text", "expected"),
    [(b"", []), (b"a\nb\n", [b"a", b"b"]), (b"a\n\nbcdefgh", [b"a", b"", b"bcdefgh"]), (b"\n", [b""])],
)
def test_lines_are_what_stands_between_line_ends(stream: type[io.BytesIO], text: bytes, expected: list[bytes]) -> None:
    assert list(Lines(stream(text))) == expected


def test_a_line_longer_than_any_body_is_refused_before_it_is_read() -> None:
    stream = io.BytesIO(b"ok\n" + b"x" * (8 * BODY_BYTES_MAX))
    lines = iter(reader := Lines(stream))
    assert next(lines) == b"ok"
    with pytest.raises(TooLarge):
        next(lines)
    assert reader.number == 2
    assert stream.tell() < 2 * BODY_BYTES_MAX


def test_blank_lines_are_messages_only_as_bytes() -> None:
    assert [bytes(body) for body in bodies_of(Lines(io.BytesIO(b"1\r\n\n 2 \n")), raw=False)] == [b"1", b"2"]
    assert list(bodies_of(Lines(io.BytesIO(b"1\n\n2")), raw=True)) == [b"1", b"", b"2"]


def test_a_bad_line_is_named() -> None:
    lines = Lines(io.BytesIO(b"1\n\n2\noops\n"))
    with pytest.raises(BadBody) as caught:
        list(bodies_of(lines, raw=False))
    assert at_line(lines, caught.value, "2 done").startswith("line 4: 'oops' is not JSON")


def test_the_other_end_is_asked_before_a_wait() -> None:
    read_end, write_end = _pipe()
    calls: list[int] = []

    def more() -> None:
        calls.append(len(calls))
        if len(calls) == 1:
            write_end.write(b"2\n")
        else:
            write_end.close()

    write_end.write(b"0\n1\n")
    with read_end:
        assert list(bodies_of(Lines(read_end), raw=True, before_waiting=more)) == [b"0", b"1", b"2"]
    assert calls == [0, 1]


def _pipe() -> tuple[io.BufferedReader, io.FileIO]:
    read_fd, write_fd = os.pipe()
    return open(read_fd, "rb"), open(write_fd, "wb", buffering=0)
