"""The command ``penstock``: which commands there are, and how a failure is told.

A command's code is imported when it is run, so that ``penstock --version`` answers at once.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
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
    "prepare": (
        "broker.commands.preparing:prepare",
        "Bring the store up to date, and make built-in CAs.",
    ),
    "demo": ("broker.commands.serving:demo", "Show one order through both halves."),
    "check": ("broker.commands.checking:check", "Check the configuration and the policies."),
    "status": ("broker.commands.requesters:status", "Tell how the broker is."),
    "order": ("broker.commands.requesters:order", "Look at orders, and hurry those that wait."),
    "cert": ("broker.commands.requesters:cert", "Look at certificates and revoke them."),
    "account": ("broker.commands.requesters:account", "Look at accounts and deactivate them."),
    "eab": ("broker.commands.requesters:eab", "Keys that bind new accounts to a requester."),
    "approval": (
        "broker.commands.approvals:approval",
        "Requests that people answer, and what came of them.",
    ),
    "owner": (
        "broker.commands.owners:owner",
        "Who answers for accounts, EAB keys and nodes.",
    ),
    "freeze": (
        "broker.commands.freezing:freeze",
        "Stop issuance; reads and revocations go on.",
    ),
    "unfreeze": ("broker.commands.freezing:unfreeze", "Let what is frozen go on."),
    "frozen": ("broker.commands.freezing:frozen", "List what is frozen."),
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
    "admission": (
        "broker.commands.admission:admission",
        "Put agents into the pods of a cluster.",
    ),
    "workload": ("broker.commands.workloads:workload", "What pods of a cluster would get."),
    "upstream": ("broker.commands.upstreams:upstream", "The CAs that the broker asks."),
    "ca": ("broker.commands.authorities:ca", "The CA that the broker is itself."),
    "vault": ("broker.commands.vault:vault", "What the broker needs in Vault."),
    "policy": ("broker.commands.policies:policy", "What the policies say."),
    "quota": ("broker.commands.quotas:quota", "What is left of limits and quotas."),
    "audit": ("broker.commands.audit:audit", "The trail of everything that happened."),
    "backup": ("broker.commands.backup:backup", "Back the broker up while it works."),
    "restore": ("broker.commands.backup:restore", "Put a backup into an empty state directory."),
    "reconcile": ("broker.commands.backup:reconcile", "Compare a restored broker with its CAs."),
    "completion": ("broker.commands.completing:completion", "Print shell completion."),
}
"""Each command with where its code is and what the list of commands says about it."""

HERE: Final = frozenset(
    {
        "serve",
        "prepare",
        "demo",
        "check",
        "admission",
        "vault",
        "backup",
        "restore",
        "completion",
    }
)
"""Commands that are about this machine, whatever broker elsewhere is named."""


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
        import importlib.metadata
        import platform

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
@click.option(
    "--server",
    metavar="URL",
    envvar="PENSTOCK_SERVER",
    help="Ask the broker there, by its operator API; also PENSTOCK_SERVER.",
)
@click.option(
    "--client-certificate",
    metavar="FILE",
    type=click.Path(path_type=Path),
    envvar="PENSTOCK_CLIENT_CERTIFICATE",
    help="Certificate that says who you are, and its chain.",
)
@click.option(
    "--client-key",
    metavar="FILE",
    type=click.Path(path_type=Path),
    envvar="PENSTOCK_CLIENT_KEY",
    help="Its private key.",
)
@click.option(
    "--token",
    metavar="REFERENCE",
    envvar="PENSTOCK_TOKEN",
    help="Access token that says who you are: file:PATH or env:NAME.",
)
@click.option(
    "--anchors",
    metavar="FILE",
    type=click.Path(path_type=Path),
    envvar="PENSTOCK_ANCHORS",
    help="Roots that certify the server.  [default: the system's]",
)
def penstock(
    server: str | None,
    client_certificate: Path | None,
    client_key: Path | None,
    token: str | None,
    anchors: Path | None,
) -> None:
    """A brokered ACME proxy: one order through both halves, with the validity cap kept.

    Data goes to standard output, talk to standard error. Exit status: 0 done, 1 failed, 2 the
    command line or the configuration is wrong.
    """
    context = click.get_current_context()
    if server is not None and context.invoked_subcommand in HERE:
        is_typed = context.get_parameter_source("server") is click.core.ParameterSource.COMMANDLINE
        if is_typed:
            raise click.UsageError(
                f"'{context.invoked_subcommand}' is about this machine and takes no --server"
            )
        server = None
    if server is None and "broker.commands.remote" not in sys.modules:
        return
    from broker.commands.remote import choose, parse_server

    choose(
        None
        if server is None
        else parse_server(
            server, certificate=client_certificate, key=client_key, anchors=anchors, token=token
        )
    )


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
