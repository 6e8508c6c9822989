"""Reads the configuration, checked whole: ``agent.toml`` with ``agent.d/*.toml`` beside it, or a
variable of the environment.

Imported when a configuration is read and not kept in use after it.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from datetime import timedelta
from typing import Final, TypeVar

from agents.config import (
    UNCHECKED,
    Absent,
    AgentConfig,
    Authentication,
    BrokerSection,
    BundleContent,
    BundleSection,
    CertificateSection,
    ChallengesSection,
    DriverSection,
    EnrolMethod,
    EnrolSection,
    ExpectsSection,
    FilesSection,
    KeyKind,
    KeySection,
    Layout,
    LookSection,
    NodeSection,
    ReloadSection,
    StartTls,
)
from agents.reading import ConfigFault, Table, read_address
from agents.sources import find_includes, read_source

__all__ = ["read_config"]

DEFAULT_STATE: Final = "/var/lib/penstock-agent"
"""Where the agent keeps what it must not forget, as the FHS has it."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NODE: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_IDENTIFIER: Final = re.compile(r"[a-z0-9*_:][a-z0-9._:*-]{0,252}")
_URL: Final = re.compile(r"https://[^\s/?#@]+(?:/[^\s?#]*)?")
_PROXY: Final = re.compile(r"http://[^\s/?#@]+/?")
_MODE: Final = re.compile(r"0?[0-7]{3}")
_TOLD_FOLDER: Final = re.compile(r"[A-Za-z0-9_./@:+=-]{0,1023}")
_UNIT: Final = re.compile(r"[A-Za-z0-9:_.@\\-]{1,255}")

Section = TypeVar("Section")


def read_config(path: str) -> AgentConfig:
    """Return what the file and those of the folder beside it say; raises ConfigFault."""
    faults: list[str] = []
    main = Table(read_source(path, faults), file=path, place="", faults=faults)
    if faults:
        raise ConfigFault(faults)
    node = _section(main, "node", _node)
    broker = _section(main, "broker", _broker)
    enrol = _section(main, "enrol", _enrol)
    challenges = _section(main, "challenges", _challenges)
    certificates, bundles = _lists(main)
    main.close()
    if not node.name and enrol.method is not EnrolMethod.KUBERNETES:
        faults.append(
            f"{path}: node.name: is missing; only a cluster's token names a node by itself"
        )
    for included in find_includes(path):
        more = Table(read_source(included, faults), file=included, place="", faults=faults)
        found = _lists(more)
        certificates += found[0]
        bundles += found[1]
        more.close()
    config = AgentConfig(
        node=node,
        broker=broker,
        enrol=enrol,
        certificates=tuple(certificates),
        bundles=tuple(bundles),
        challenges=challenges,
    )
    _check_whole(config, path, faults)
    if faults:
        raise ConfigFault(faults)
    return config


def _section(table: Table, key: str, read: Callable[[Table], Section]) -> Section:
    below = table.table(key, is_needed=key in {"node", "broker", "enrol"})
    made = read(below)
    below.close()
    return made


def _lists(table: Table) -> tuple[list[CertificateSection], list[BundleSection]]:
    certificates, bundles = [], []
    for one in table.tables("certificate"):
        certificates.append(_certificate(one))
        one.close()
    for one in table.tables("bundle"):
        bundles.append(_bundle(one))
        one.close()
    return certificates, bundles


def _node(table: Table) -> NodeSection:
    name = table.text("name")
    if name and (len(name) > 253 or not _NODE.fullmatch(name)):
        table.fault("name", f"{name[:80]!r} is not made of lower-case DNS labels")
    state = table.path("state", DEFAULT_STATE)
    allowed = table.texts("allowed")
    for one in allowed:
        if not one.startswith("/") or {".", ".."} & set(one.split("/")) or not one.strip("/"):
            table.fault("allowed", f"{one!r} is no absolute path of a folder without dots")
    metrics = table.text("metrics", "127.0.0.1:9406")
    if metrics:
        read_address(table, "metrics", metrics)
    return NodeSection(
        name=name,
        state=state or DEFAULT_STATE,
        allowed=tuple("/" + "/".join(p for p in one.split("/") if p) for one in allowed),
        metrics=metrics or None,
        workers=table.number("workers", 4, least=1, most=64),
    )


def _broker(table: Table) -> BrokerSection:
    url = table.text("url", is_needed=True)
    if url and not (_URL.fullmatch(url) and url.isascii()):
        table.fault("url", f"{url[:80]!r} is no URL that begins with https://")
    anchors = table.text("anchors", is_needed=True)
    if anchors != "system":
        anchors = table.path("anchors") or ""
    proxy = table.text("proxy")
    if proxy and not _PROXY.fullmatch(proxy):
        table.fault("proxy", "is no http://HOST:PORT")
    return BrokerSection(
        url=url.rstrip("/"),
        anchors=anchors,
        proxy=proxy or None,
        authentication=table.choice("authentication", Authentication.TLS),
    )


def _enrol(table: Table) -> EnrolSection:
    method = table.choice("method", EnrolMethod.TOKEN)
    credential = table.text("credential")
    if credential:
        _reference(table, "credential", credential)
    by_certificate = method is EnrolMethod.CERTIFICATE
    if method in {EnrolMethod.TOKEN, EnrolMethod.KUBERNETES} and not credential:
        table.fault("credential", f"is missing; method {method} needs it")
    return EnrolSection(
        method=method,
        credential=credential or None,
        certificate=table.path("certificate", is_needed=by_certificate),
        key=table.path("key", is_needed=by_certificate),
    )


def _challenges(table: Table) -> ChallengesSection:
    http, tls_alpn = table.text("http"), table.text("tls_alpn")
    for key, value in (("http", http), ("tls_alpn", tls_alpn)):
        if value:
            read_address(table, key, value)
    webroot = table.path("webroot")
    return ChallengesSection(http=http or None, tls_alpn=tls_alpn or None, webroot=webroot)


def _certificate(table: Table) -> CertificateSection:
    name = _name(table)
    names = table.texts("names", is_needed=True)
    for one in names:
        if not _IDENTIFIER.fullmatch(one):
            table.fault("names", f"{one[:80]!r} is no lower-case DNS name or address")
    if len(set(names)) != len(names):
        table.fault("names", "has a name twice")
    driver = _section(table, "driver", _driver) if "driver" in table else None
    files = None
    if "files" in table or driver is None:
        files = _section(table, "files", lambda below: _files(below, name))
    look = _section(table, "look", lambda below: _look(below, names)) if "look" in table else None
    reloading = _section(table, "reload", _reload)
    is_told = reloading.command or reloading.check
    if is_told and files is not None and not _TOLD_FOLDER.fullmatch(files.directory):
        table.fault("files", "directory is told to a program: a space or sign in it does not fit")
    return CertificateSection(
        name=name,
        names=names,
        profile=table.text("profile") or None,
        key=_section(table, "key", _key),
        files=files,
        reload=reloading,
        look=look,
        expects=_section(table, "expects", _expects),
        driver=driver,
    )


def _name(table: Table) -> str:
    name = table.text("name", is_needed=True)
    if name and (not _NAME.fullmatch(name) or ".." in name):
        table.fault("name", f"{name[:80]!r} is not made of letters, digits, '.', '-' and '_'")
    return name


def _key(table: Table) -> KeySection:
    store = table.text("store", "file")
    if store != "file" and not store.startswith("pkcs11:"):
        table.fault("store", f"{store[:80]!r} is neither 'file' nor a 'pkcs11:' URI")
    return KeySection(
        kind=table.choice("kind", KeyKind.EC_P256),
        store=store,
        keep_previous=table.duration("keep_previous", timedelta(0)),
        seal_to=table.path("seal_to"),
    )


def _files(table: Table, name: str) -> FilesSection:
    file = table.text("file", name)
    if file and (not _NAME.fullmatch(file) or ".." in file):
        table.fault("file", f"{file[:80]!r} is no name of a file")
    mode = table.text("mode", "0600")
    if not _MODE.fullmatch(mode) or int(mode, 8) & 0o007:
        table.fault("mode", f"{mode[:8]!r} is not like '0600', or lets everybody read the key")
        mode = "0600"
    layout = table.choice("layout", Layout.PEM)
    password = table.text("password")
    if password:
        _reference(table, "password", password)
    if (layout is Layout.PKCS12) != bool(password):
        said = "is missing; PKCS#12 needs it" if not password else f"has no use in layout {layout}"
        table.fault("password", said)
    return FilesSection(
        layout=layout,
        directory=table.path("directory", is_needed=True) or "",
        file=file,
        owner=table.text("owner") or None,
        group=table.text("group") or None,
        mode=int(mode, 8),
        password=password or None,
    )


def _reload(table: Table) -> ReloadSection:
    found = table.text("signal").removeprefix("SIG")
    if found and not isinstance(getattr(signal, f"SIG{found}", None), signal.Signals):
        table.fault("signal", f"{found[:20]!r} is no signal")
    made = ReloadSection(
        signal=found or None,
        pid_file=table.path("pid_file"),
        process=table.text("process") or None,
        user=table.text("user") or None,
        command=table.texts("command"),
        systemd=table.text("systemd") or None,
        timeout=table.duration("timeout", timedelta(seconds=30)),
        check=table.texts("check"),
        absent=table.choice("absent", Absent.FAIL),
    )
    if sum(map(bool, (made.signal, made.command, made.systemd))) > 1:
        table.fault("", "names more than one of signal, command and systemd")
    if made.signal and not made.process:
        table.fault("process", "is missing; a signal needs the program that it is for")
    if made.systemd and not _UNIT.fullmatch(made.systemd):
        table.fault("systemd", f"{made.systemd[:80]!r} is no name of a unit")
    for key in ("command", "check"):
        _program(table, key, getattr(made, key))
    return made


def _look(table: Table, names: tuple[str, ...]) -> LookSection:
    host, port = read_address(table, "connect", table.text("connect", is_needed=True))
    plain = next((one for one in names if "*" not in one and ":" not in one), "")
    starttls = table.choice("starttls", StartTls.SMTP) if "starttls" in table else None
    return LookSection(
        host=host,
        port=port,
        server_name=table.text("server_name", plain) or None,
        starttls=starttls,
        attempts=table.number("attempts", 10, least=1, most=1_000),
        timeout=table.duration("timeout", timedelta(seconds=30)),
        first=table.choice("first", Absent.FAIL),
    )


def _expects(table: Table) -> ExpectsSection:
    anchors = None
    if table.text("anchors") != UNCHECKED:
        anchors = table.path("anchors", is_needed="anchors" in table)
    if "anchors" not in table:
        table.fault(
            "anchors",
            "is missing; name the PEM file of the CAs that this certificate may come from,"
            f" or say {UNCHECKED!r} to take it from any",
        )
    return ExpectsSection(anchors=anchors, longest=table.optional_duration("longest"))


def _driver(table: Table) -> DriverSection:
    command = table.texts("command", is_needed=True)
    _program(table, "command", command)
    return DriverSection(command=command, timeout=table.duration("timeout", timedelta(minutes=5)))


def _bundle(table: Table) -> BundleSection:
    return BundleSection(
        name=_name(table),
        file=table.path("file", is_needed=True) or "",
        content=table.choice("content", BundleContent.ANCHORS),
        system=table.is_true("system", default=False),
        reload=_section(table, "reload", _reload),
    )


def _program(table: Table, key: str, arguments: tuple[str, ...]) -> None:
    if arguments and not arguments[0].startswith("/"):
        table.fault(key, f"{arguments[0][:80]!r} is no absolute path of a program")


def _reference(table: Table, key: str, text: str) -> None:
    kind, colon, value = text.partition(":")
    if not colon or not value or kind not in {"file", "env"}:
        table.fault(key, "is no reference such as 'file:PATH' or 'env:NAME'")


def _check_whole(config: AgentConfig, path: str, faults: list[str]) -> None:
    """Keep what is wrong between sections: names twice, places that are not allowed or shared."""
    for what, sections in (("certificate", config.certificates), ("bundle", config.bundles)):
        seen: set[str] = set()
        for one in sections:
            if one.name in seen:
                faults.append(f"{path}: {what}[{one.name}]: is there twice")
            seen.add(one.name)
    places: dict[tuple[str, str], str] = {}
    for one in config.certificates:
        if one.files is None:
            continue
        if not _is_below(one.files.directory, config.node.allowed):
            faults.append(_outside(path, "certificate", one.name, one.files.directory))
        shared = one.files.layout in {Layout.COMBINED, Layout.PKCS12, Layout.CERTBOT}
        place = (one.files.directory, one.files.file if shared else "")
        if place in places:
            faults.append(
                f"{path}: certificate[{one.name}].files: has the place of {places[place]!r} too"
            )
        places[place] = one.name
    for bundle in config.bundles:
        if not _is_below(bundle.file, config.node.allowed):
            faults.append(_outside(path, "bundle", bundle.name, bundle.file))
        if bundle.system and bundle.content is not BundleContent.ANCHORS:
            faults.append(f"{path}: bundle[{bundle.name}].system: is for anchors alone")
    webroot = config.challenges.webroot
    if webroot is not None and not _is_below(webroot, config.node.allowed):
        faults.append(
            f"{path}: challenges.webroot: {webroot!r} is in none of the folders of node.allowed"
        )


def _is_below(place: str, allowed: tuple[str, ...]) -> bool:
    return any(place == one or place.startswith(one + "/") for one in allowed)


def _outside(path: str, what: str, name: str, place: str) -> str:
    return f"{path}: {what}[{name}]: {place!r} is in none of the folders of node.allowed"
