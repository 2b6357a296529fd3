"""`zbroker`: the table of commands. Each lives in a module of its own, imported when it is used: --help stays under 200 ms."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

import click

from zbroker.cli.suggestions import Group

INTERRUPTED: Final = 130  # as zbroker.cli.exits says, which imports more than --help may

# Command -> (module, attribute, what the list of commands says). A new command is one line here.
COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    "run": ("zbroker.cli.run", "run", "Run a broker in the foreground."),
    "demo": ("zbroker.cli.demo", "demo", "Take the tour: every pattern on real data, in half a minute."),
    "device": ("zbroker.cli.device", "device", "Forward between plain ZeroMQ sockets: forwarder, queue, streamer."),
    "bench": ("zbroker.cli.bench", "bench", "Measure this machine, beside bare ZeroMQ."),
    "pub": ("zbroker.cli.pub", "pub", "Publish messages of a topic."),
    "sub": ("zbroker.cli.sub", "sub", "Print the messages of topics as they come."),
    "request": ("zbroker.cli.request", "request", "Ask a service and print its reply."),
    "reply": ("zbroker.cli.reply", "reply", "Offer a service: an echo, or a command of yours."),
    "send": ("zbroker.cli.send", "send", "Store messages in a stream."),
    "receive": ("zbroker.cli.receive", "receive", "Take messages from a stream."),
    "stream": ("zbroker.cli.stream", "stream", "Make, change, look at, empty and delete streams; replay one."),
    "group": ("zbroker.cli.group", "group", "Make, change, look at, reset, pause and delete groups."),
    "dead": ("zbroker.cli.dead", "dead", "Look at dead letters, and send them back."),
    "status": ("zbroker.cli.status", "status", "Show what a broker holds and does."),
    "store": ("zbroker.cli.store", "store", "Check, copy, export and import a data folder."),
    "config": ("zbroker.cli.config", "config", "Show the settings of a broker, and where each comes from."),
    "top": ("zbroker.cli.top", "top", "Watch a broker: rates, lag, sessions, memory."),
    "completion": ("zbroker.cli.completion", "completion", "Print the script that completes commands in your shell."),
}

PLANNED: Final = ("check", "doctor", "keys")  # of the whole of zbroker, not of this version


class LazyGroup(Group):
    """A group that knows its commands by name and help alone until one is called."""

    def list_commands(self, context: click.Context) -> list[str]:
        """All commands, in the order of the table."""
        return list(COMMANDS)

    def resolve_command(
        self, context: click.Context, words: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As ever; what is not built says so."""
        if words[0] in PLANNED and not context.resilient_parsing:
            from zbroker.cli.exits import REFUSED, end

            end(REFUSED, f"`zbroker {words[0]}` is not built in this version; `zbroker --help` lists what is")
        return super().resolve_command(context, words)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command, its module imported now."""
        entry = COMMANDS.get(name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(entry[0]), entry[1])
        assert isinstance(command, click.Command)
        return command

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:
        """As ever, and Ctrl-C is as quiet as later; click would say "Aborted!" and exit with 1."""
        try:
            return super().make_context(*arguments, **more)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)

    def invoke(self, context: click.Context) -> Any:
        """Run a command; the same for Ctrl-C."""
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from the table: importing them all would take longer than reading it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in COMMANDS.items()])


# As zbroker.cli.exits has them, which imports more than --help may.
_EXIT_STATUSES: Final = """\b
Exit status:
    0  done; 1 failed; 2 wrong usage
   10  unhealthy: a data folder is damaged
   69  broker, service, address or data folder unavailable
   74  standard input or output failed
   75  timed out; 77 refused; 78 bad configuration
  129  the terminal went; 130 Ctrl-C (0 of run, device and top)
  141  a pipe was closed; 143 SIGTERM (0 of run, device and reply)
"""


@click.group(cls=LazyGroup, epilog=_EXIT_STATUSES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="zbroker")
def main() -> None:
    """Messaging over ZeroMQ: request-reply, publish-subscribe and durable streams, with or without a broker."""
