"""`oqtoctl completion`: what a shell needs to complete oqtoctl's command lines."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from oqtod.admin.caller import Command


@click.command(
    "completion",
    cls=Command,
    examples=[
        "source <(oqtoctl completion bash)",
        "oqtoctl completion fish > ~/.config/fish/completions/oqtoctl.fish",
    ],
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete commands, options and names.

    The Debian package has installed it for all three already.
    """
    click.echo(script(shell, "oqtoctl"))


def script(shell: str, program: str) -> str:
    """Return the completion script of a click program for a shell."""
    found = get_completion_class(shell)
    assert found is not None, shell
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    return found(click.Command(program), {}, program, variable).source()
