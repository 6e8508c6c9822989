"""``penstock completion``: what a shell needs to complete our commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]


@click.command("completion", short_help="Print shell completion.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    For bash: `source <(penstock completion bash)`.
    """
    found = get_completion_class(shell)
    if found is None:
        raise click.ClickException(f"no completion for {shell}")
    root = ctx.find_root().command
    made = found(root, {}, "penstock", "_PENSTOCK_COMPLETE")
    # click's own bash class runs bash to ask its version first, which printing needs not.
    click.echo(made.source_template % made.source_vars())
