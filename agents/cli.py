"""The command `penstock-agent`.

Standard output is data; what is told to people goes to standard error.  Exit 0: done, 1: failed,
2: misused, or a configuration that cannot be used; ``needs-renewal`` answers by its exit code.
Argument parsing is not kept by the resident process.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from agents import __version__
from agents.resident import become_resident, is_resident, leave_when_stopped

if TYPE_CHECKING:
    import argparse

    from agents.config import AgentConfig

__all__ = ["EXIT_DONE", "EXIT_FAILED", "EXIT_MISUSED", "PROGRAM", "build_parser", "main"]

PROGRAM: Final = "penstock-agent"

EXIT_DONE: Final = 0
"""Exit code of what was done, or had nothing to do."""

EXIT_FAILED: Final = 1
"""Exit code of what could not be done; standard error says why."""

EXIT_MISUSED: Final = 2
"""Exit code for a command line, or a configuration, that cannot be used."""

NEEDS_RENEWAL: Final = 0
"""Answer of ``needs-renewal``, as ``step certificate needs-renewal`` has it: it is due."""

NEEDS_NO_RENEWAL: Final = 1
"""It is not due yet."""

NOTHING_THERE: Final = 2
"""There is no certificate, or none that can be read."""

ONCE_SECONDS: Final = 300
"""How long ``once`` waits for certificates, in seconds, unless told otherwise."""


MAX_READY_CHARS: Final = 1_000
"""Longest line of ``ready``, in characters: Kubernetes shows 1,024 of an event's message."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    import argparse

    # Of a width that is given: to ask the terminal would bring the archive libraries into memory.
    width = partial(argparse.HelpFormatter, width=80)
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        formatter_class=width,
        description="Keeps the certificates of this host fresh: makes keys here, receives "
        "certificates from a Penstock broker, installs them, reloads servers and looks at them.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, prog=PROGRAM)
    for name, text in _COMMANDS.items():
        said = text[0].upper() + text[1:] + "."
        command = commands.add_parser(name, help=text, description=said, formatter_class=width)
        _add_arguments(command, name)
    return parser


_COMMANDS: Final = {
    "run": "run until told to stop",
    "once": "run until every certificate is in place, then stop",
    "ready": "tell by the exit code whether every certificate is in place",
    "status": "show how each certificate stands",
    "check": "read the configuration and look at the host, and change nothing",
    "adopt": "take over a pair that is already being served, without a new certificate",
    "needs-renewal": "exit 0 if the certificate is due, 1 if not, 2 if there is none",
    "driver": "answer for a device that cannot run an agent; the agent itself calls this",
    "version": "show the version",
}


_DRIVERS: Final = {"redfish": "agents.drivers_redfish", "ssh": "agents.drivers_ssh"}
"""Kind of device → the module that speaks to it."""


def _add_arguments(command: argparse.ArgumentParser, name: str) -> None:
    from agents.config import DEFAULT_PATH

    if name == "driver":
        command.add_argument("kind", choices=sorted(_DRIVERS), help="how the device is spoken to")
        command.add_argument("settings", metavar="FILE", help="settings of the device")
    elif name != "version":
        command.add_argument(
            "--config",
            metavar="FILE",
            default=DEFAULT_PATH,
            help=f"or env:NAME for what a variable holds; default {DEFAULT_PATH}",
        )
    _add_options(command, name)
    if name in {"status", "check", "version"}:
        command.add_argument("--json", action="store_true", help="write JSON")
    if name == "adopt":
        command.add_argument("path", metavar="PATH", help="file or folder of the pair")
        command.add_argument(
            "--certificate", metavar="NAME", help="which [[certificate]] it is, if not plain"
        )
        command.add_argument(
            "--anchors",
            metavar="FILE",
            help="CAs that its successors may come from, or 'unchecked', for a new section",
        )
    if name == "needs-renewal":
        command.add_argument("name", metavar="NAME", help="name of the [[certificate]]")


def _add_options(command: argparse.ArgumentParser, name: str) -> None:
    """Add those of commands that run, or wait."""
    if name in {"run", "once"}:
        command.add_argument(
            "--log-format", choices=("auto", "text", "json"), default="auto", help="default auto"
        )
    if name == "ready":
        command.add_argument(
            "--wait",
            metavar="SECONDS",
            type=int,
            default=0,
            help="answer as soon as they are, and after so long at the latest",
        )
    if name == "once":
        command.add_argument(
            "--timeout",
            metavar="SECONDS",
            type=int,
            default=ONCE_SECONDS,
            help=f"give up after so long, default {ONCE_SECONDS}",
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    if arguments is None and sys.argv[1:2] == ["run"]:
        leave_when_stopped()
    chosen = vars(build_parser().parse_args(arguments))
    name = chosen.pop("command")
    if name == "version":
        return _version(**chosen)
    if name == "driver":
        return _drive(**chosen)
    if name in {"run", "once"}:
        _drop_parser()
        if name == "run" and not is_resident():
            become_resident(["run", *_words(chosen)])
        return _run(chosen["config"], chosen["log_format"], chosen.get("timeout"))
    from agents.config import ConfigFault, load

    try:
        config = load(chosen["config"])
    except ConfigFault as fault:
        return _misconfigured(fault.faults)
    if name == "needs-renewal":
        return _needs_renewal(config, chosen["name"])
    if name == "adopt":
        return _adopt(config, chosen)
    if name == "ready":
        return _ready(config, chosen["wait"])
    if name == "check":
        return _check(config, is_json=chosen["json"])
    return _status(config, is_json=chosen["json"])


def _words(chosen: dict[str, Any]) -> list[str]:
    return ["--config", chosen["config"], "--log-format", chosen["log_format"]]


def _drop_parser() -> None:
    """Forget the parser before anything long-lived is made, so that its memory is used again."""
    for module in ("argparse", "gettext", "locale"):
        sys.modules.pop(module, None)


def _drive(*, kind: str, settings: str) -> int:
    """Answer the question on standard input; see docs/operations/devices.md."""
    import importlib

    answer: int = importlib.import_module(_DRIVERS[kind]).main([settings])
    return answer


def _version(*, json: bool) -> int:
    import json as writer

    if json:
        print(writer.dumps({"version": __version__, "python": sys.version.split()[0]}))
    else:
        print(f"{PROGRAM} {__version__}")
    return EXIT_DONE


def _run(path: str, log_format: str, timeout: int | None) -> int:
    from agents.clock import SystemClock
    from agents.config import ConfigFault
    from agents.log import Log, LogFormat
    from agents.run import Agent
    from agents.state import StateFault

    clock = SystemClock()
    try:
        agent = Agent(path, clock, Log(clock, format_=LogFormat(log_format)))
    except ConfigFault as fault:
        return _misconfigured(fault.faults)
    except StateFault as state:
        return _failed(
            str(state), "only one agent runs on a state folder, and it has to be its own"
        )
    return agent.run(until_ready=None if timeout is None else float(timeout))


def _ready(config: AgentConfig, seconds: int) -> int:
    from agents.clock import SystemClock, seconds_alive
    from agents.ready import check_ready
    from agents.state import Folder, StateFault
    from agents.waits import await_nothing, read_wait

    def look() -> list[str]:
        own = Folder(config.node.state) if os.path.isdir(config.node.state) else None
        return check_ready(config, _records(config), SystemClock().now(), read_wait(own))

    try:
        # Whoever waits for the answer began to when the process was begun.
        found = await_nothing(look, seconds - seconds_alive())
    except StateFault as fault:
        return _failed(str(fault))
    if found:
        # One line, for it is what the event of a failed probe shows.
        print(f"{PROGRAM}: {'; '.join(found)}"[:MAX_READY_CHARS], file=sys.stderr)
    return EXIT_FAILED if found else EXIT_DONE


def _status(config: AgentConfig, *, is_json: bool) -> int:
    from agents.clock import SystemClock
    from agents.config import UNCHECKED
    from agents.ready import standings
    from agents.state import State, StateFault

    try:
        found = standings(config, _records(config), SystemClock().now())
        identity = _identity(config)
        holder = State(config.node.state).holder() if os.path.isdir(config.node.state) else None
    except StateFault as fault:
        return _failed(str(fault))
    if is_json:
        made = [one.document() for one in found]
        shown = {"identity": identity, "process": holder, "certificates": made}
        print(json.dumps(shown, indent=2))
        return EXIT_DONE
    print(f"node      {identity['node']} ({identity['node_id']}), identity {identity['not_after']}")
    print(f"agent     {'not running' if holder is None else f'running as process {holder}'}")
    for one in found:
        ends = one.not_after.strftime("%Y-%m-%dT%H:%M:%SZ") if one.not_after else "-"
        said = "" if one.is_held_to_anchors else f"  anchors {UNCHECKED}"
        said += f"  {one.fault}" if one.fault else ""
        print(f"{one.state:<9} {one.name}  until {ends}  generation {one.generation}{said}")
    return EXIT_DONE


def _check(config: AgentConfig, *, is_json: bool) -> int:
    from agents.looking_over import look_over, warn_of

    found, warnings = look_over(config), warn_of(config)
    for one in warnings:
        print(f"{PROGRAM}: warning: {one}", file=sys.stderr)
    if is_json:
        print(json.dumps({"findings": found, "warnings": warnings}, indent=2))
    for one in () if is_json else found:
        print(one)
    return EXIT_FAILED if found else EXIT_DONE


def _needs_renewal(config: AgentConfig, name: str) -> int:
    from agents.clock import SystemClock
    from agents.ready import is_due
    from agents.state import StateFault

    try:
        found = is_due(_records(config)(name), SystemClock().now())
    except StateFault:
        found = None
    if found is None:
        return NOTHING_THERE
    return NEEDS_RENEWAL if found else NEEDS_NO_RENEWAL


def _adopt(config: AgentConfig, chosen: dict[str, Any]) -> int:
    from agents.adopt import AdoptFault, adopt

    try:
        adopted = adopt(
            config,
            chosen["path"],
            chosen["certificate"],
            config_path=chosen["config"],
            anchors=chosen["anchors"],
        )
    except AdoptFault as fault:
        return _failed(str(fault))
    print(f"adopted {adopted.name}: {adopted.fingerprint}")
    if adopted.written is not None:
        print(f"{PROGRAM}: wrote {adopted.written}, look at what it says", file=sys.stderr)
    return EXIT_DONE


def _records(config: AgentConfig) -> Any:
    """Return what finds records on the disk; they are only read."""
    from agents.records import Record, Records
    from agents.state import Folder

    path = os.path.join(config.node.state, "certificates")
    return Records(Folder(path)).get if os.path.isdir(path) else Record


def _identity(config: AgentConfig) -> dict[str, Any]:
    from agents.state import Folder

    path = os.path.join(config.node.state, "identity")
    found = (Folder(path).get("identity") if os.path.isdir(path) else None) or {}
    not_after = found.get("not_after")
    ends = "none"
    if isinstance(not_after, int):
        from datetime import UTC, datetime

        ends = datetime.fromtimestamp(not_after, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "node": found.get("node", config.node.name),
        "node_id": found.get("node_id"),
        "not_after": ends,
    }


def _misconfigured(faults: Sequence[str]) -> int:
    for one in faults:
        print(f"{PROGRAM}: error: {one}", file=sys.stderr)
    print(f"{PROGRAM}: hint: docs/agents.md shows a whole configuration", file=sys.stderr)
    return EXIT_MISUSED


def _failed(reason: str, hint: str | None = None) -> int:
    print(f"{PROGRAM}: error: {reason}", file=sys.stderr)
    if hint:
        print(f"{PROGRAM}: hint: {hint}", file=sys.stderr)
    return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
