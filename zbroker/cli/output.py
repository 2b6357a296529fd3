"""Standard output: whole lines, flushed one by one, so that whoever reads the pipe sees each when it is true."""

from __future__ import annotations

import sys
from typing import Any

from patterns.wire.errors import ZbrokerError
from zbroker.cli.bodies import keyed, line_of, shown


class Printer:
    """Prints messages for people, or as JSON objects."""

    def __init__(self, *, as_json: bool, raw: bool) -> None:
        self._out = sys.stdout.buffer
        self.as_json = as_json
        self._raw = raw

    def message(self, fields: dict[str, Any], body: Any, encoded: bytes | None = None, prefix: str = "") -> None:
        """A message: its fields with `body` or `body_base64` under --json, else its body after `prefix`."""
        if self.as_json:
            self._line(line_of({**fields, **keyed(body, encoded, raw=self._raw)}))
        else:
            self._line(prefix.encode() + shown(body, encoded, raw=self._raw))

    def record(self, fields: dict[str, Any]) -> None:
        """What has no body: printed under --json alone."""
        if self.as_json:
            self._line(line_of(fields))

    def _line(self, line: bytes) -> None:
        self._out.write(line + b"\n")
        self._out.flush()


def error_fields(error: ZbrokerError) -> dict[str, Any]:
    """An error as --json prints it: what programs look at, and the text for people."""
    fields = {"number": error.number, "name": error.name, "text": str(error), "retryable": error.retryable}
    fields |= {"code": error.code} if error.code else {}
    fields |= {"retry_after_ms": error.retry_after_ms} if error.retry_after_ms else {}
    return {"error": fields}
