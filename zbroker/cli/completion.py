"""`zbroker completion`: click's own completion, as a script to source."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes commands and options in SHELL, and streams if the broker answers at once.

    \b
    bash: eval "$(zbroker completion bash)"          in ~/.bashrc
    zsh:  eval "$(zbroker completion zsh)"           in ~/.zshrc
    fish: zbroker completion fish | source           in ~/.config/fish/config.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "zbroker", "_ZBROKER_COMPLETE").source())
