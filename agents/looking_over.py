"""Looks the host over before an agent runs on it: what is missing, and changes nothing."""

from __future__ import annotations

import os
import stat

from agents.config import UNCHECKED, AgentConfig, CertificateSection

__all__ = ["look_over", "warn_of"]


def look_over(config: AgentConfig) -> list[str]:
    """Return what would keep an agent from doing its work here, for people."""
    found = []
    if config.broker.anchors != "system":
        found += _unreadable("broker.anchors", config.broker.anchors)
    for key, path in (("certificate", config.enrol.certificate), ("key", config.enrol.key)):
        if path is not None:
            found += _unreadable(f"enrol.{key}", path)
    credential = _needed_credential(config)
    if credential is not None and not _is_of_systemd(credential):
        found += _missing_secret(credential)
    found += _unwritable("node.state", config.node.state)
    for one in config.certificates:
        found += _certificate(one)
    return found


def warn_of(config: AgentConfig) -> list[str]:
    """Return what the configuration allows on purpose or could not be looked at, for people."""
    return _unseen(config) + [
        f"certificate[{one.name}].expects.anchors: {UNCHECKED}: it is taken from any CA that the"
        " broker had it from"
        for one in config.certificates
        if one.expects.anchors is None
    ]


def _certificate(section: CertificateSection) -> list[str]:
    place = f"certificate[{section.name}]"
    found = []
    if section.files is not None:
        found += _unwritable(f"{place}.files.directory", section.files.directory)
        found += _unknown_owner(place, section.files.owner, section.files.group)
    if section.expects.anchors is not None:
        found += _unreadable(f"{place}.expects.anchors", section.expects.anchors)
    if section.key.seal_to is not None:
        found += _unreadable(f"{place}.key.seal_to", section.key.seal_to)
    driver = section.driver.command if section.driver is not None else ()
    for command in (section.reload.command, section.reload.check, driver):
        if command and not os.access(command[0], os.X_OK):
            found.append(f"{place}: {command[0]} is no program that can be run")
    return found


def _unseen(config: AgentConfig) -> list[str]:
    credential = _needed_credential(config)
    if credential is None or not _is_of_systemd(credential):
        return []
    name = credential.partition(":")[2]
    said = f"enrol.credential: {name} is handed over by systemd and was not looked at"
    return [f"{said}; the unit takes it from /etc/credstore/{name}"]


def _needed_credential(config: AgentConfig) -> str | None:
    """Return the reference to what is shown to be let in; who has an identity needs none."""
    is_known = os.path.exists(os.path.join(config.node.state, "identity", "identity.json"))
    return None if is_known else config.enrol.credential


def _is_of_systemd(reference: str) -> bool:
    """Say whether only a process that systemd started can read it, which this one is not."""
    kind, _, name = reference.partition(":")
    return kind == "file" and not name.startswith("/") and "CREDENTIALS_DIRECTORY" not in os.environ


def _missing_secret(reference: str) -> list[str]:
    from agents.references import ReferenceFault, read_reference

    try:
        read_reference(reference)
    except ReferenceFault as fault:
        return [f"enrol.credential: {fault}"]
    return []


def _unreadable(key: str, path: str) -> list[str]:
    return [] if os.access(path, os.R_OK) else [f"{key}: {path} cannot be read"]


def _unwritable(key: str, path: str) -> list[str]:
    """Find the nearest folder that is there: the others are made."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        return [f"{key}: {path} is no folder"]
    return [] if os.access(path, os.W_OK | os.X_OK) else [f"{key}: {path} cannot be written to"]


def _unknown_owner(place: str, owner: str | None, group: str | None) -> list[str]:
    import grp
    import pwd

    found = []
    for what, name, find in (("owner", owner, pwd.getpwnam), ("group", group, grp.getgrnam)):
        if name is None or name.isdigit():
            continue
        try:
            find(name)
        except KeyError:
            found.append(f"{place}.files.{what}: {name!r} is not known on this host")
    return found
