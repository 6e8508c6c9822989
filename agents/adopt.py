"""Takes over a pair that is already being served, without a new certificate.

What lies there stays as it is, byte for byte, until the broker's first renewal.  The key is copied
into the node's state, so that it can be asked a certificate for again; the section that the
configuration lacks is written; the broker is told what is served.  Run as a command, while no agent
runs on the same state.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from agents.child import ChildFault, run_child
from agents.clock import Clock, SystemClock
from agents.config import (
    UNCHECKED,
    AgentConfig,
    CertificateSection,
    FilesSection,
    KeyKind,
    Layout,
)
from agents.crafting_pem import first_key
from agents.crafting_ports import CraftFault
from agents.keys import KeyFault, adopt_key, key_folder
from agents.layouts import KEY_NAMES, place_of
from agents.mailbox import Outbox
from agents.paths import Found, PathFault, open_folder, read_regular
from agents.references import ReferenceFault, read_reference
from agents.state import State, StateFault, write_durably
from agents.switching import read_stable
from agents.verify import Rejected, read_anchors

__all__ = ["AdoptFault", "Adopted", "adopt"]

INCLUDES: Final = "agent.d"
"""Folder beside the configuration, where the section of what was adopted is written."""

_CHAIN_NAMES: Final = {"pem": "fullchain.pem", "certbot": "fullchain.pem", "kubernetes": "tls.crt"}


class AdoptFault(Exception):
    """It is not taken over; nothing was changed, and what is served stays."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """What was taken over."""

    name: str
    fingerprint: str
    names: tuple[str, ...]
    not_after: int
    """In seconds since 1970."""
    written: str | None
    """The file with its new section; None: the configuration had one."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """What lies there."""

    chain_pem: str
    key: Found
    files: FilesSection


@dataclass(frozen=True, slots=True)
class _Judged:
    """What the certificate that lies there is held to."""

    anchors_pem: str | None
    at: int
    """In seconds since 1970."""


def adopt(
    config: AgentConfig,
    path: str,
    name: str | None = None,
    *,
    config_path: str | None = None,
    anchors: str | None = None,
    clock: Clock | None = None,
) -> Adopted:
    """Take over the pair in the folder or file at *path* as the certificate *name*.

    *anchors* is what the section says that is written where the configuration has none: a PEM file,
    or ``unchecked``.

    Raises:
        AdoptFault: It is no pair that belongs together, has ended, lies where the node does not
            allow, is not what the configuration says, or an agent is running.
    """
    try:
        state = State(config.node.state)
        state.hold()
    except StateFault as fault:
        raise AdoptFault(f"{fault}; stop the agent while something is adopted") from None
    try:
        at = int((clock or SystemClock()).now().timestamp())
        return _adopt(config, state, path, name, config_path=config_path, anchors=anchors, at=at)
    except (PathFault, CraftFault, KeyFault, StateFault, ReferenceFault, Rejected) as fault:
        raise AdoptFault(str(fault)) from None
    except ChildFault as fault:
        raise AdoptFault(fault.reason) from None
    except OSError as error:
        raise AdoptFault(f"{error.filename}: {error.strerror}") from None
    finally:
        state.release()


def _adopt(
    config: AgentConfig,
    state: State,
    path: str,
    name: str | None,
    *,
    config_path: str | None,
    anchors: str | None,
    at: int,
) -> Adopted:
    files = _recognise(os.path.abspath(path))
    section = _find_section(config, files, name)
    said = _anchors_for(section, anchors)
    called = section.name if section is not None else name or files.file
    if section is not None and section.files is not None:
        files = section.files
    folder = key_folder(called, config.node.state)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    key_path = os.path.join(folder, "adopting.pem")
    try:
        pair = _read_pair(files, config.node.allowed, key_path)
        facts = _check_pair(pair, key_path, section, _Judged(read_anchors(said), at))
        written = None
        if section is None:
            text = section_text(called, files, pair.key, facts, said)
            written = _write_section(called, text, config_path)
        made = adopt_key(called, key_path, config.node.state)
    finally:
        if os.path.lexists(key_path):
            os.unlink(key_path)
    record = {
        "generation": 0,
        "fingerprint": facts["fingerprint"],
        "not_before": facts["not_before"],
        "not_after": facts["not_after"],
        "spki_sha256": facts["spki_sha256"],
        "key": made.key_reference,
        "is_seen": False,
    }
    state.certificates.put(called, record)
    told = {"certificate": called, "chain_pem": str(facts["chain_pem"])}
    Outbox(state.outbox).put("adopted", told)
    names = tuple(facts["names"])
    return Adopted(called, str(facts["fingerprint"]), names, int(facts["not_after"]), written)


def _recognise(path: str) -> FilesSection:
    """Return which layout lies at *path*."""
    folder, base = os.path.split(path)
    stem, ending = os.path.splitext(base)
    if os.path.isfile(path):
        layout = {".pem": Layout.COMBINED, ".p12": Layout.PKCS12}.get(ending)
        if layout is None:
            raise AdoptFault(f"{path}: a file to adopt is NAME.pem or NAME.p12")
        return FilesSection(layout=layout, directory=folder, file=stem)
    has = {one for one in os.listdir(path) if not one.startswith(".")}
    if {"tls.crt", "tls.key"} <= has:
        return FilesSection(layout=Layout.KUBERNETES, directory=path, file=base)
    above, parent = os.path.split(folder)
    if parent == "live" and {"cert.pem", "chain.pem", "fullchain.pem", "privkey.pem"} <= has:
        return FilesSection(layout=Layout.CERTBOT, directory=above, file=base)
    if {"fullchain.pem", "privkey.pem"} <= has:
        return FilesSection(layout=Layout.PEM, directory=path, file=base)
    raise AdoptFault(
        f"{path}: neither fullchain.pem with privkey.pem nor tls.crt with tls.key lies there"
    )


def _find_section(
    config: AgentConfig, files: FilesSection, name: str | None
) -> CertificateSection | None:
    """Return the section that says what lies there, if the configuration has one."""
    for one in config.certificates:
        if one.files is not None and place_of(one.files) == place_of(files):
            if name not in (None, one.name):
                raise AdoptFault(f"the configuration calls what lies there {one.name!r}")
            return one
    if name is not None and config.certificate(name) is not None:
        raise AdoptFault(f"the configuration has certificate {name!r} in another place")
    return None


def _anchors_for(section: CertificateSection | None, given: str | None) -> str | None:
    """Return the file of anchors that the certificate is held to, None where any CA will do."""
    if section is not None:
        if given is not None:
            raise AdoptFault(
                f"the configuration says already what certificate {section.name!r} is held to"
            )
        return section.expects.anchors
    if given is None:
        raise AdoptFault(
            "the configuration has no section for what lies there; say --anchors FILE, the PEM file"
            f" of the CAs that its successors may come from, or --anchors {UNCHECKED}"
        )
    return None if given == UNCHECKED else os.path.abspath(given)


def _read_pair(files: FilesSection, allowed: tuple[str, ...], key_path: str) -> _Pair:
    """Read key and chain, and put a copy of the key alone at *key_path*."""
    layout = str(files.layout)
    place, link, names = place_of(files)
    with open_folder(place, allowed) as folder:
        if link is None:
            found = read_regular(folder, names[0])
            if found is None:
                raise AdoptFault(f"{place}/{names[0]} is not there")
            if layout == "pkcs12":
                return _Pair(_open_pkcs12(files, found, key_path), found, files)
            _copy_key(found, key_path)
            return _Pair(found.octets.decode("ascii", "replace"), found, files)
        read = [
            _read_by_name(folder, link, one) for one in (_CHAIN_NAMES[layout], KEY_NAMES[layout])
        ]
    chain, key = read
    _copy_key(key, key_path)
    return _Pair(chain.octets.decode("ascii", "replace"), key, files)


def _read_by_name(folder: int, link: str, name: str) -> Found:
    """Read a file by its stable name, also where that is a link as kubelet or we make it."""
    text = os.readlink(link, dir_fd=folder) if _is_link(folder, link) else None
    if text is not None and _is_link(folder, name) and "/" not in text:
        inside = os.open(text, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
        try:
            found = read_regular(inside, name)
        finally:
            os.close(inside)
    else:
        found = read_stable(folder, name)
    if found is None:
        raise AdoptFault(f"{name} is not there")
    return found


def _is_link(folder: int, name: str) -> bool:
    try:
        os.readlink(name, dir_fd=folder)
    except OSError:
        return False
    return True


def _copy_key(found: Found, key_path: str) -> None:
    write_durably(key_path, first_key(found.octets))


def _open_pkcs12(files: FilesSection, found: Found, key_path: str) -> str:
    if files.password is None:
        raise AdoptFault(
            "the configuration has to have this certificate first, with files.password"
        )
    copy = f"{key_path}.p12"
    write_durably(copy, found.octets)
    try:
        work = {
            "do": "open-pkcs12",
            "path": copy,
            "password": read_reference(files.password),
            "key_path": key_path,
        }
        return str(run_child(work)["chain_pem"])
    finally:
        os.unlink(copy)


def _check_pair(
    pair: _Pair, key_path: str, section: CertificateSection | None, judged: _Judged
) -> dict[str, Any]:
    """Return the facts of the certificate if it and the key belong together and it is alive."""
    now = judged.at
    work = {"do": "inspect", "pem": pair.chain_pem, "anchors": judged.anchors_pem, "at": now}
    found = run_child(work)
    public = run_child({"do": "public", "key": key_path})
    leaf: dict[str, Any] = {**found["certificates"][0], "chain_pem": found["chain_pem"]}
    if leaf["spki_sha256"] != public["spki_sha256"]:
        raise AdoptFault("the certificate and the key that lie there do not belong together")
    if not leaf["not_before"] <= now < leaf["not_after"]:
        raise AdoptFault("the certificate that lies there is not valid now; have a new one made")
    if found["why"] is not None:
        raise AdoptFault(f"its chain is not good: {found['why']}")
    if leaf["is_ca"] or not leaf["names"] or any(one.startswith("other:") for one in leaf["names"]):
        raise AdoptFault("it is no certificate of a server: a CA's, or one without plain names")
    if leaf["key_kind"] not in tuple(KeyKind):
        raise AdoptFault(f"a key of kind {leaf['key_kind']} cannot be renewed")
    if section is not None:
        _check_section(section, leaf)
    return leaf


def _check_section(section: CertificateSection, leaf: Mapping[str, Any]) -> None:
    if {one.lower() for one in section.names} != set(leaf["names"]):
        raise AdoptFault(
            f"certificate {section.name!r} is configured for {', '.join(section.names)}, "
            f"and what lies there is for {', '.join(leaf['names'])}"
        )
    if section.key.kind != leaf["key_kind"]:
        raise AdoptFault(
            f"certificate {section.name!r} is configured with a key of kind {section.key.kind}, "
            f"and what lies there has {leaf['key_kind']}"
        )


def _write_section(name: str, text: str, config_path: str | None) -> str:
    if config_path is None or config_path.startswith("env:"):
        raise AdoptFault("the configuration has no section for what lies there")
    folder = os.path.join(os.path.dirname(os.path.abspath(config_path)), INCLUDES)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    path = os.path.join(folder, f"{name}.toml")
    if os.path.lexists(path):
        raise AdoptFault(f"{path} is there already")
    write_durably(path, text.encode("utf-8"), mode=0o644)
    return path


def section_text(
    name: str, files: FilesSection, key: Found, facts: Mapping[str, Any], anchors: str | None
) -> str:
    """Return the section of the configuration that says what lies there."""
    mode = key.mode & 0o770 | 0o600
    lines = [
        f"# Taken over from {place_of(files)[0]}; add [certificate.reload] and [certificate.look].",
        "[[certificate]]",
        f"name = {json.dumps(name)}",
        f"names = {json.dumps(list(facts['names']))}",
        "",
        "[certificate.key]",
        f"kind = {json.dumps(facts['key_kind'])}",
        "",
        "[certificate.files]",
        f"layout = {json.dumps(str(files.layout))}",
        f"directory = {json.dumps(files.directory)}",
        f"file = {json.dumps(files.file)}",
        f'owner = "{key.uid}"',
        f'group = "{key.gid}"',
        f'mode = "{mode:04o}"',
        "",
        "[certificate.expects]",
        f"anchors = {json.dumps(anchors or UNCHECKED)}",
    ]
    return "\n".join(lines) + "\n"
