"""The command ``penstock``: which commands there are, and how a failure is told.

A command's code is imported when it is run, so that ``penstock --version`` answers at once.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

__all__ = ["COMMANDS", "main", "penstock"]

PROGRAM: Final = "penstock"

EXIT_FAILED: Final = 1
"""The command was understood and could not be done."""

EXIT_MISUSED: Final = 2
"""The command line or the configuration is wrong; nothing was tried."""

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "serve": ("broker.commands.serving:serve", "Run the broker until it is told to stop."),
    "demo": ("broker.commands.serving:demo", "Show one order through both halves."),
    "check": ("broker.commands.checking:check", "Check the configuration and the policies."),
    "status": ("broker.commands.requesters:status", "Tell how the broker is."),
    "order": ("broker.commands.requesters:order", "Look at orders, and hurry those that wait."),
    "cert": ("broker.commands.requesters:cert", "Look at certificates and revoke them."),
    "account": ("broker.commands.requesters:account", "Look at accounts and deactivate them."),
    "eab": ("broker.commands.requesters:eab", "Keys that bind new accounts to a requester."),
    "renew": ("broker.commands.deliveries:renew", "Renew certificates at nodes now."),
    "incident": (
        "broker.commands.incidents:incident",
        "Replace many certificates by a deadline.",
    ),
    "rollout": (
        "broker.commands.rollouts:rollout",
        "Waves of certificates over groups of nodes.",
    ),
    "node": ("broker.commands.node:node", "Nodes with agents, and how they are let in."),
    "upstream": ("broker.commands.upstreams:upstream", "The CAs that the broker asks."),
    "ca": ("broker.commands.authorities:ca", "The CA that the broker is itself."),
    "vault": ("broker.commands.vault:vault", "What the broker needs in Vault."),
    "policy": ("broker.commands.policies:policy", "What the policies say."),
    "backup": ("broker.commands.backup:backup", "Back the broker up while it works."),
    "restore": ("broker.commands.backup:restore", "Put a backup into an empty state directory."),
    "reconcile": ("broker.commands.backup:reconcile", "Compare a restored broker with its CAs."),
    "completion": ("broker.commands.completing:completion", "Print shell completion."),
}
"""Each command with where its code is and what the list of commands says about it."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are run, and listed without being so."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the commands in the order in which they are used first."""
        return list(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """List the commands from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _print_version(ctx: click.Context, _option: click.Parameter, is_asked: bool) -> None:
    if is_asked and not ctx.resilient_parsing:
        version = importlib.metadata.version(PROGRAM)
        click.echo(f"{PROGRAM} {version} (python {platform.python_version()})")
        ctx.exit()


@click.group(PROGRAM, cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and exit.",
)
def penstock() -> None:
    """A brokered ACME proxy: one order through both halves, with the validity cap kept.

    Data goes to standard output, talk to standard error. Exit status: 0 done, 1 failed, 2 the
    command line or the configuration is wrong.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    try:
        result: Any = penstock.main(
            args=list(arguments) if arguments is not None else None,
            prog_name=PROGRAM,
            standalone_mode=False,
        )
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_MISUSED
    except click.UsageError as error:
        where = f"{PROGRAM} {error.ctx.command_path.partition(' ')[2]}" if error.ctx else PROGRAM
        _say(error.format_message(), f"see {where.strip()} --help")
        return EXIT_MISUSED
    except click.ClickException as error:
        _say(error.message, getattr(error, "hint", None))
        return error.exit_code
    except click.Abort:
        _say("interrupted", None)
        return EXIT_FAILED
    except BrokenPipeError:
        # Whoever read our output has read enough; Python must not try to flush the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    return result if isinstance(result, int) else 0


def _say(message: str, hint: str | None) -> None:
    sentence = message.strip().rstrip(".")
    sentence = sentence[:1].lower() + sentence[1:] if sentence[1:2].islower() else sentence
    print(f"{PROGRAM}: error: {sentence}", file=sys.stderr)
    if hint:
        print(f"{PROGRAM}: hint: {hint}", file=sys.stderr)
