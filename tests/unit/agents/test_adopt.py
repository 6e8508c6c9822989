"""Taking over a pair that is already being served."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509 import load_pem_x509_certificates

from agents.adopt import AdoptFault, adopt
from agents.config import (
    AgentConfig,
    BrokerSection,
    CertificateSection,
    EnrolMethod,
    EnrolSection,
    KeyKind,
    KeySection,
    Layout,
    NodeSection,
)
from agents.keys import make_csr, serving_key
from agents.records import Records
from agents.state import State
from tests.fakes.node_authority import Issue, Node, NodeAuthority, craft_here, key_pem


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    craft_here(monkeypatch)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node."""
    return Node(tmp_path)


def config(node: Node, *certificates: CertificateSection) -> AgentConfig:
    """Return a configuration."""
    return AgentConfig(
        node=NodeSection(name="n.example", state=str(node.state), allowed=node.allowed),
        broker=BrokerSection(url="https://broker.example", anchors="system"),
        enrol=EnrolSection(method=EnrolMethod.APPROVAL),
        certificates=certificates,
    )


def new(node: Node) -> dict[str, Any]:
    """Return what is said where the configuration has no section yet."""
    return {"config_path": str(node.home / "agent.toml"), "anchors": str(node.anchors)}


def lay(node: Node, layout: Layout, issue: Issue | None = None) -> Path:
    """Lay a pair as somebody else would; return what is adopted."""
    key = ec.generate_private_key(ec.SECP256R1())
    secret, chain = key_pem(key), node.authority.certify_key(key, issue).encode()
    leaf = chain[: chain.index(b"-----END") + 26]
    folder = node.tls / "www"
    folder.mkdir()
    if layout is Layout.COMBINED:
        (folder / "www.pem").write_bytes(secret + chain)
        return folder / "www.pem"
    if layout is Layout.PKCS12:
        one, *others = load_pem_x509_certificates(chain)
        packed = pkcs12.serialize_key_and_certificates(
            b"x", key, one, others, BestAvailableEncryption(b"open sesame")
        )
        (folder / "www.p12").write_bytes(packed)
        return folder / "www.p12"
    if layout is Layout.CERTBOT:
        live, archive = folder / "live" / "www", folder / "archive" / "www"
        live.mkdir(parents=True)
        archive.mkdir(parents=True)
        texts = {"cert": leaf, "chain": chain[len(leaf) :], "fullchain": chain, "privkey": secret}
        for name, text in texts.items():
            (archive / f"{name}4.pem").write_bytes(text)
            (live / f"{name}.pem").symlink_to(f"../../archive/www/{name}4.pem")
        return live
    names = ("tls.crt", "tls.key") if layout is Layout.KUBERNETES else _PEM
    for name, text in zip(names, (chain, secret), strict=True):
        (folder / name).write_bytes(text)
        (folder / name).chmod(0o640)
    return folder


_PEM = ("fullchain.pem", "privkey.pem")


def picture(folder: Path) -> dict[str, bytes]:
    """Return every file with what is read in it."""
    return {
        str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()
    }


@pytest.mark.parametrize("layout", [one for one in Layout if one is not Layout.PKCS12], ids=str)
def test_a_pair_is_stated_as_it_is_served(node: Node, layout: Layout) -> None:
    """Nothing of what is served changes; its section is written, its record kept, the broker
    told."""
    path = lay(node, layout)
    before = picture(node.tls)
    adopted = adopt(config(node), str(path), **new(node))
    assert picture(node.tls) == before
    assert adopted.name == "www"
    assert adopted.written == str(node.home / "agent.d" / "www.toml")
    (section,) = tomllib.loads(Path(adopted.written).read_text())["certificate"]
    assert section["names"] == ["www.example"]
    assert section["key"] == {"kind": "ec-p256"}
    assert section["files"]["layout"] == layout
    assert section["files"]["directory"] == str(node.tls / "www")
    assert section["expects"] == {"anchors": str(node.anchors)}
    state = State(str(node.state))
    record = Records(state.certificates).get("www")
    assert (record.generation, record.fingerprint) == (0, adopted.fingerprint)
    assert record.not_after == adopted.not_after
    (name,) = state.outbox.names()
    message = state.outbox.get(name) or {}
    assert message["kind"] == "adopted"
    assert "BEGIN CERTIFICATE" in message["body"]["chain_pem"]


@pytest.mark.parametrize("layout", list(Layout), ids=str)
def test_the_first_renewal_of_what_was_adopted(node: Node, layout: Layout) -> None:
    """The key can be asked for again, and the new pair takes the place of the old, and back."""
    path = lay(node, layout)
    before = picture(node.tls)
    section = node.section(layout)
    adopt(config(node, section), str(path))
    state = str(node.state)
    key = serving_key("www", state)
    assert key is not None
    kept = make_csr(section, names=section.names, is_new_key=False, state_dir=state)
    assert kept.key_reference == key
    assert Path(key).stat().st_mode & 0o777 == 0o600
    assert load_pem_private_key(Path(key).read_bytes(), None)
    installation = node.install(section, *node.obtain(section))
    assert picture(node.tls) != before
    installation.undo()
    now = picture(node.tls)
    assert {name: now[name] for name in before} == before


def test_what_its_successors_may_come_from_has_to_be_said(node: Node) -> None:
    """Nothing is written without it; what lies there is held to it, and to a section's own."""
    path = str(lay(node, Layout.PEM))
    said = new(node)
    with pytest.raises(AdoptFault, match="say --anchors FILE"):
        adopt(config(node), path, config_path=said["config_path"])
    others = node.home / "others.pem"
    others.write_text(NodeAuthority().anchors_pem)
    with pytest.raises(AdoptFault, match="its chain is not good"):
        adopt(config(node), path, **{**said, "anchors": str(others)})
    with pytest.raises(AdoptFault, match="cannot be read"):
        adopt(config(node), path, **{**said, "anchors": str(node.home / "absent.pem")})
    with pytest.raises(AdoptFault, match="says already what certificate 'www' is held to"):
        adopt(config(node, node.section()), path, **said)
    assert not (node.home / "agent.d").exists()
    adopted = adopt(config(node), path, **{**said, "anchors": "unchecked"})
    written = tomllib.loads(Path(adopted.written or "").read_text())
    assert written["certificate"][0]["expects"] == {"anchors": "unchecked"}


def test_one_that_the_configuration_knows(node: Node) -> None:
    """It takes its name from there, and nothing is written."""
    path = lay(node, Layout.PEM)
    section = dataclasses.replace(node.section(), name="shop")
    adopted = adopt(config(node, section), str(path))
    assert (adopted.name, adopted.written) == ("shop", None)
    with pytest.raises(AdoptFault, match="calls what lies there 'shop'"):
        adopt(config(node, section), str(path), "other")


def test_what_is_not_adopted(node: Node) -> None:
    """Each is refused, and neither what is served nor the state has changed."""
    path = lay(node, Layout.PEM)
    files = str(path)
    other = node.section(names=["other.example"])
    rsa = node.section(key=KeySection(kind=KeyKind.RSA_2048))
    before = picture(node.tls)
    for given, where, said in (
        (config(node, other), files, "configured for other"),
        (config(node, rsa), files, "a key of kind rsa-2048"),
        (config(node), str(node.tls), "neither fullchain"),
        (config(node), str(node.home / "password"), "NAME.pem or NAME.p12"),
        (config(node), str(node.home / "absent"), "No such file"),
        (config(node), files, "no section"),
    ):
        with pytest.raises(AdoptFault, match=said):
            adopt(given, where)
    node.tls.rename(node.home / "elsewhere")
    with pytest.raises(AdoptFault, match="in none of the folders"):
        adopt(config(node), str(node.home / "elsewhere" / "www"), **new(node))
    (node.home / "elsewhere").rename(node.tls)
    assert picture(node.tls) == before
    assert serving_key("www", str(node.state)) is None
    assert not (node.home / "agent.d").exists()
    assert list(node.state.rglob("*.pem")) == []


@pytest.mark.parametrize(
    ("issue", "said"),
    [
        (Issue(begins=timedelta(days=-9), lasts=timedelta(days=2)), "not valid now"),
        (Issue(is_ca=True, usages=("key_cert_sign",)), "no certificate of a server"),
        (Issue([], common_name="x"), "no certificate of a server"),
    ],
    ids=["ended", "CA", "no names"],
)
def test_a_certificate_that_cannot_be_kept_fresh(node: Node, issue: Issue, said: str) -> None:
    """One that has ended, a CA's, one without names."""
    path = lay(node, Layout.PEM, issue)
    with pytest.raises(AdoptFault, match=said):
        adopt(config(node), str(path), **new(node))


def test_a_chain_and_a_key_that_do_not_belong_together(node: Node) -> None:
    """Somebody has mixed them up; the server that read them has not been reloaded since."""
    path = lay(node, Layout.PEM)
    (path / "privkey.pem").write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(AdoptFault, match="do not belong together"):
        adopt(config(node), str(path), **new(node))


def test_not_while_an_agent_runs(node: Node) -> None:
    """It would not know; once it has stopped the same call succeeds."""
    path = lay(node, Layout.PEM)
    running = State(str(node.state))
    running.hold()
    with pytest.raises(AdoptFault, match="stop the agent"):
        adopt(config(node), str(path), **new(node))
    running.release()
    assert adopt(config(node), str(path), **new(node))


def test_a_section_that_is_there_is_not_written_over(node: Node) -> None:
    """A file of that name is somebody's."""
    path = lay(node, Layout.PEM)
    (node.home / "agent.d").mkdir()
    (node.home / "agent.d" / "www.toml").write_text("# mine\n")
    with pytest.raises(AdoptFault, match="there already"):
        adopt(config(node), str(path), **new(node))
    assert (node.home / "agent.d" / "www.toml").read_text() == "# mine\n"


def test_a_pkcs12_needs_its_password(node: Node) -> None:
    """Which only the configuration can name."""
    path = lay(node, Layout.PKCS12)
    with pytest.raises(AdoptFault, match=r"files\.password"):
        adopt(config(node), str(path), **new(node))
    assert os.listdir(node.state / "keys" / "www") == []
