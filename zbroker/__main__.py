"""`zbroker`, and `python -m zbroker`: Ctrl-C is quiet from here on, while modules are being imported too, and so are streams
that are closed or full."""

from __future__ import annotations

import os
import sys

MYPY = False  # what a type checker takes for true; typing.TYPE_CHECKING costs the 5 ms that this is about
if MYPY:
    import signal
    from types import FrameType
    from typing import NoReturn
else:
    import _signal as signal  # signal itself imports enum and more; until the handler is set, Ctrl-C prints a trace

INTERRUPTED = 130  # as zbroker.cli.exits says, which imports more than may go before the handler


def main() -> None:
    """The command line; the commands are in zbroker.cli."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else whoever started us wants it ignored
        signal.signal(signal.SIGINT, _interrupted)
    try:
        from zbroker.cli.standard_streams import IO_FAILED, StandardStreamFailed, complain, set_up

        set_up()
        from zbroker.cli.main import main as command

        try:
            command(prog_name="zbroker")
        except StandardStreamFailed as error:
            complain(error)
            sys.exit(IO_FAILED)
    except KeyboardInterrupt:  # in one of the few lines between here and a command's own
        sys.exit(INTERRUPTED)
    finally:
        if signal.getsignal(signal.SIGINT) is _interrupted:
            signal.signal(
                signal.SIGINT, _leave
            )  # the interpreter would print the trace of whatever it is just clearing away


def _interrupted(number: int, frame: FrameType | None) -> NoReturn:
    """Leave at once out of an import, else raise KeyboardInterrupt.

    Half-imported modules print traces of their own when an exception goes through them, and before its imports a command
    has nothing to put in order.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            _leave(number, frame)
        frame = frame.f_back
    raise KeyboardInterrupt


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
