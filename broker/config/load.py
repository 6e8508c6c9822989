"""Reading the configuration: the file, then what the model alone cannot see."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from broker.config.agent_checks import check_agents
from broker.config.audit import check_audit
from broker.config.cluster_checks import check_clusters, check_workload_anchors
from broker.config.model import Config
from broker.config.operator_checks import check_operators
from broker.config.publishing import check_publishing
from broker.config.solver_checks import check_solvers
from broker.config.upstreams import AcmeUpstream, BuiltinUpstream
from broker.config.vault_checks import check_vault
from broker.config.vouching_checks import check_vouching
from broker.issuance.errors import Broken
from broker.policy.yamlfile import MAX_TEXT_BYTES, Fault, Faults, KeyPath, Lines, load_model

if TYPE_CHECKING:
    from broker.config.policies import LoadedPolicies

__all__ = [
    "DEFAULT_PATH",
    "load_all",
    "load_config",
    "parse_config",
    "parse_with_lines",
    "read_text",
]

DEFAULT_PATH: Final = Path("/etc/penstock/penstock.yaml")
"""Where the configuration lies unless a command says otherwise."""

MAX_SOCKET_PATH_BYTES: Final = 107
"""Longest path of a Unix socket, in bytes: Linux keeps 108 for it, the last of which is zero."""


def load_config(path: Path) -> Config:
    """Return the configuration that lies at *path*.

    Raises:
        Broken: It cannot be read.
        Faults: All that is wrong with it, with lines.
    """
    return parse_with_lines(read_text(path), str(path))[0]


def load_all(path: Path) -> tuple[Config, LoadedPolicies]:
    """Return the configuration at *path* with the policies it names, checked together.

    Raises:
        Broken: One of the files cannot be read.
        Faults: All that is wrong with any of them, with lines.
    """
    # A command that asks the running broker reads the configuration and no policy.
    from broker.config.policies import load_policies

    config, lines = parse_with_lines(read_text(path), str(path))
    return config, load_policies(config, lines)


def read_text(path: Path) -> str:
    """Return what the file at *path* says; raises Broken, and Faults where it is no text."""
    try:
        with path.open("rb") as file:
            # One byte more than is allowed, so that the reader sees that there is more.
            octets = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or "it cannot be read").lower()
        raise Broken(f"configuration {path} cannot be read: {reason}") from error
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError as error:
        line = octets[: error.start].count(b"\n") + 1
        raise Faults([Fault(str(path), line, "", "is not UTF-8")]) from error


def parse_config(text: str, source: str) -> Config:
    """Return the configuration that *text* holds; *source* names it in faults.

    Raises:
        Faults: All that is wrong with it, with lines.
    """
    return parse_with_lines(text, source)[0]


def parse_with_lines(text: str, source: str) -> tuple[Config, Lines]:
    """Return the configuration that *text* holds, and where each of its keys stands.

    Raises:
        Faults: All that is wrong with it, with lines.
    """
    config, lines = load_model(text, source, Config)
    faults = list(_check_references(config, lines))
    if faults:
        raise Faults(faults)
    return config, lines


def _check_references(config: Config, lines: Lines) -> Iterator[Fault]:
    yield from _check_communities(config, lines)
    yield from _check_declared_keys(config, lines)
    yield from _check_operator_socket(config, lines)
    yield from _check_listeners(config, lines)
    yield from check_solvers(config, lines)
    yield from check_vault(config, lines)
    yield from check_vouching(config, lines)
    yield from check_clusters(config, lines)
    yield from check_agents(config, lines)
    yield from check_audit(config.audit, config.state, lines)
    yield from check_operators(config, lines)
    yield from check_publishing(config, lines)
    yield from check_workload_anchors(config, lines)
    yield from _check_policy(config, lines)


def _check_policy(config: Config, lines: Lines) -> Iterator[Fault]:
    """Signed bundles name files within one directory, so that there has to be exactly one."""
    named = config.policies or ()
    if config.policy.bundle is not None and len(named) != 1:
        what = "the policies that came with the broker are not signed"
        yield lines.fault(
            ("policy", "bundle"),
            "signed policies lie in one directory, "
            + (f"'policies' names {len(named)}" if named else f"'policies' names none and {what}"),
        )


def _check_communities(config: Config, lines: Lines) -> Iterator[Fault]:
    known = list(config.communities)
    served: set[str] = set()
    for name, upstream in config.upstreams.items():
        served.update(upstream.communities)
        for place, community in enumerate(upstream.communities):
            path: KeyPath = ("upstreams", name, "communities", place)
            yield from _check_known(lines, path, "community", community, known)
    for community in known:
        if community not in served:
            yield lines.fault(
                ("communities", community),
                f"community '{community}' is served by no upstream",
                "name it in the communities of an upstream",
            )


def _check_declared_keys(config: Config, lines: Lines) -> Iterator[Fault]:
    seen: set[tuple[str, str]] = set()
    for place, key in enumerate(config.external_account_bindings):
        path: KeyPath = ("external_account_bindings", place)
        yield from _check_known(
            lines, (*path, "community"), "community", key.community, list(config.communities)
        )
        if (key.community, key.key_id) in seen:
            yield lines.fault((*path, "key_id"), f"key id '{key.key_id}' stands here twice")
        seen.add((key.community, key.key_id))


def _check_operator_socket(config: Config, lines: Lines) -> Iterator[Fault]:
    length = len(os.fsencode(config.operator_socket))
    if length > MAX_SOCKET_PATH_BYTES:
        is_named = config.listen.operator.socket is not None
        yield lines.fault(
            ("listen", "operator", "socket") if is_named else ("state",),
            f"the operator socket's path {config.operator_socket} is {length} bytes long, "
            f"the limit is {MAX_SOCKET_PATH_BYTES}",
            "give a shorter one as listen.operator.socket",
        )


def _check_listeners(config: Config, lines: Lines) -> Iterator[Fault]:
    issuer = config.listen.acme.issued_by
    if issuer is not None:
        path: KeyPath = ("listen", "acme", "from")
        yield from _check_known(lines, path, "upstream", issuer, list(config.upstreams))
        yield from _check_serves(config.upstreams.get(issuer), lines, path)
    if config.listen.plain is not None:
        return
    for name, upstream in config.upstreams.items():
        reason = None
        if isinstance(upstream, BuiltinUpstream):
            reason = "publishes its issuers and CRLs"
        elif isinstance(upstream, AcmeUpstream):
            is_http = any(solver.challenge == "http-01" for solver in upstream.solvers)
            reason = "has its http-01 challenges answered" if is_http else None
        if reason is not None:
            yield lines.fault(
                ("upstreams", name),
                f"upstream '{name}' {reason} at the plain listener, which is missing",
                "add listen.plain",
            )


def _check_serves(
    upstream: BuiltinUpstream | AcmeUpstream | None, lines: Lines, path: KeyPath
) -> Iterator[Fault]:
    """Find that the CA which is to certify the listener has no profile for TLS servers."""
    if isinstance(upstream, BuiltinUpstream) and upstream.server_profile is None:
        yield lines.fault(
            path,
            "the built-in upstream has no profile with the usage server-auth",
            "add one, or give certificate and key",
        )


def _check_known(
    lines: Lines, path: KeyPath, what: str, name: str, known: Sequence[str]
) -> Iterator[Fault]:
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        hint = f"did you mean '{near[0]}'?"
    else:
        hint = f"known here: {', '.join(known)}" if known else "there is none"
    yield lines.fault(path, f"no {what} is called '{name}'", hint)
