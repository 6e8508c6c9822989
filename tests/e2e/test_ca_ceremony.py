"""The ceremony of docs/operations/ca-ceremony.md, typed word for word by two people.

Each has a shell: Anna's knows Vault and the broker, Ben's knows neither.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

import pytest
from cryptography import x509

from tests.deployments.penstock import REPOSITORY, BuiltInCa
from tests.deployments.vaulted import Transit, vault_section
from tests.e2e.test_rotation import OwnTls, Site, crl_of, issued, revoke
from tests.peers.installation import VAULT, installed
from tests.peers.vault import Vault

pytestmark = [pytest.mark.e2e, pytest.mark.peers]

PAGE: Final = REPOSITORY / "docs" / "operations" / "ca-ceremony.md"
PEOPLE: Final = ("Anna", "Ben")
KEY: Final = "penstock.local.issuing"
FIRST, SECOND = (f"vault:transit-ca/{KEY}#{number}" for number in (1, 2))
PARTS: Final = re.compile(
    r"^## (?P<title>[^\n]+)$|\*\*(?P<who>Anna|Ben)\*\*|^```(?P<kind>\w+)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
END: Final = "--- end of the block ---"


class Page:
    """The page's blocks: by section, each with whose it is."""

    def __init__(self) -> None:
        self.variables = ""
        self.sections: dict[str, list[tuple[str, str]]] = {}
        title, who = "", ""
        for part in PARTS.finditer(PAGE.read_text("utf-8")):
            title = part["title"] or title
            who = part["who"] or who
            if part["kind"] == "bash":
                self.variables += part["body"]
            elif part["kind"] == "sh":
                self.sections.setdefault(title, []).append((who, part["body"]))


class Person:
    """One who types into a shell of their own, which ends at the first thing that fails."""

    def __init__(self, name: str, directory: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self._shell = subprocess.Popen(
            ["bash", "-euo", "pipefail"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=dict(environment),
            text=True,
        )

    def types(self, block: str) -> str:
        """Type a block; return what was said."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{block}\necho '{END}'\n")
        self._shell.stdin.flush()
        said = ""
        for line in self._shell.stdout:
            if line.strip() == END:
                return said
            said += line
        pytest.fail(
            f"{self.name}'s shell ended with {self._shell.wait()} in\n{block}\nafter\n{said}"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.kill()
        self._shell.wait()
        self._shell.stdin.close()
        self._shell.stdout.close()


class BareBroker(OwnTls):
    """A broker whose CA is made by people."""

    def prepare(self) -> None:
        """Write the listener's certificate and the configuration alone."""
        self.make_own_certificate()
        self.write()
        self.is_prepared = True


class Room(Site):
    """Vault, the broker, the medium that is carried, and Ben's safe."""

    def __init__(self, directory: Path, vault: Vault, *, root_in_vault: bool = False) -> None:
        self.folder = directory / "openssl"
        self.medium, self.safe, self.run_folder = (
            directory / name for name in ("medium", "safe", "run")
        )
        for folder in (self.folder, self.medium, self.safe, self.run_folder):
            folder.mkdir(mode=0o700)
        (self.safe / "passphrase").write_text("a passphrase for tests\n", "ascii")
        self.vault = vault
        self.directory = directory
        options = {"key_store": "vault:transit-ca"}
        if root_in_vault:
            options["root_key_store"] = "vault:transit-root"
        section = vault_section(
            Transit(vault, directory, "transit-accounts", ["penstock.default.outer"]),
            is_rotating=False,
        )
        section["mounts"] = self._mounts(root_in_vault=root_in_vault)
        trusted = {
            "eab": ["farm"],
            "names": ["**.example.test"],
            "profiles": ["server"],
            "because": "this test is about the CA",
        }
        self.broker = BareBroker(
            directory,
            validation_http_port=9,
            policy={"trusted": [trusted]},
            built_in=BuiltInCa(options=options),
            more={"vault": section},
        )
        self.broker.prepare()

    def _mounts(self, *, root_in_vault: bool) -> dict[str, Any]:
        def login(name: str) -> dict[str, str]:
            return {"method": "token", "token": f"file:{self.run_folder / name}.token"}

        if not root_in_vault:
            return {"transit-ca": {"serve": login("ca-serve")}}
        return {
            f"transit-{name}": {"serve": login(f"{name}-serve"), "rotate": login(f"{name}-rotate")}
            for name in ("ca", "root")
        }

    def environments(self) -> dict[str, dict[str, str]]:
        """Return the environment of each person."""
        tools = self.directory / "bin"
        tools.mkdir()
        penstock = tools / "penstock"
        penstock.write_text(f'#!/bin/sh\nexec {sys.executable} -m broker "$@"\n', "ascii")
        penstock.chmod(0o755)
        anna = self.broker.environment()
        path = f"{tools}:{Path(installed(VAULT.name)).parent}:{anna['PATH']}"
        anna |= {"PATH": path, "VAULT_TOKEN": self.vault.root_token}
        return {"Anna": anna, "Ben": {"PATH": "/usr/bin:/bin", "HOME": str(self.safe)}}

    def changed(self) -> str:
        """Return the variables that differ here from the page's."""
        values = {
            "VAULT_ADDR": self.vault.url,
            "VAULT_CACERT": self.vault.ca_bundle,
            "PENSTOCK_CONFIG": self.broker.config,
            "RUN": self.run_folder,
            "MEDIUM": self.medium,
            "SAFE": self.safe,
            "NAMES": "example.test",
        }
        return "\n".join(f"export {name}={value}" for name, value in values.items())


class Ceremony:
    """Both people at work, each block by whose it is."""

    def __init__(self, people: Mapping[str, Person], page: Page) -> None:
        self._people = people
        self._page = page

    def do(self, title: str, *, first: int = 0, last: int | None = None) -> list[str]:
        """Do the blocks of a section, and return what was said at each."""
        blocks = self._page.sections[title][first:last]
        assert blocks, title
        return [self._people[who].types(body) for who, body in blocks]


def at_work(room: Room, page: Page) -> Iterator[Ceremony]:
    """Give both people, who know the page's variables."""
    environments = room.environments()
    with (
        Person("Anna", room.directory, environments["Anna"]) as anna,
        Person("Ben", room.directory, environments["Ben"]) as ben,
    ):
        people = {"Anna": anna, "Ben": ben}
        for name, person in people.items():
            others = "|".join(one for one in PEOPLE if one != name)
            own = re.sub(rf"^.*# (?:{others})\b.*\n", "", page.variables, flags=re.MULTILINE)
            person.types(own)
            allowed = re.findall(r"^export (\w+)=", own, flags=re.MULTILINE)
            for line in room.changed().splitlines():
                if line.removeprefix("export ").partition("=")[0] in allowed:
                    person.types(line)
        yield Ceremony(people, page)


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    """A Vault as a newcomer has it."""
    folder = tmp_path / "vault"
    folder.mkdir()
    with Vault(folder) as made:
        yield made


@pytest.fixture
def room(tmp_path: Path, vault: Vault) -> Room:
    """Everything but the CA."""
    return Room(tmp_path, vault)


@pytest.fixture
def ceremony(room: Room) -> Iterator[Ceremony]:
    """Anna and Ben."""
    yield from at_work(room, Page())


def groups(text: str) -> list[str]:
    """Return the lines of sixteen groups of four digits in *text*."""
    return re.findall(r"^(?:[0-9a-f]{4} ){15}[0-9a-f]{4}$", text, flags=re.MULTILINE)


def fingerprints(text: str) -> list[str]:
    """Return the certificate fingerprints in *text*."""
    return re.findall(r"Fingerprint=([0-9A-F:]{95})$", text, flags=re.MULTILINE)


def compare_and_sign(ceremony: Ceremony) -> None:
    """Do what is done for every issuing key: from the comparison to the acceptance."""
    *_, read_aloud = ceremony.do("3. The request", first=1)
    (computed,) = ceremony.do("4. The comparison")
    assert groups(read_aloud) == groups(computed) != []
    (signed,) = ceremony.do("5. The signature")
    (accepted,) = ceremony.do("6. Accepting")
    assert fingerprints(signed) == fingerprints(accepted) != []


async def test_ceremony_makes_a_ca_and_its_next_issuer(room: Room, ceremony: Ceremony) -> None:
    """From nothing; what both issuers sign verifies under Ben's root, and the first one ends."""
    written, read, _ = await asyncio.to_thread(ceremony.do, "1. Mount and policies")
    assert read.startswith(written)
    assert "transit-ca/sign/penstock.local.issuing" in read
    await asyncio.to_thread(ceremony.do, "2. The root")
    await asyncio.to_thread(ceremony.do, "3. The request", last=1)
    await asyncio.to_thread(compare_and_sign, ceremony)
    await asyncio.to_thread(ceremony.do, "7. What is checked")
    root = room.medium / "root.pem"
    room.broker.ca_bundle.write_bytes(root.read_bytes())
    with room.broker:
        async with room.requester() as requester:
            old = await issued(requester, "old.example.test")
            assert room.verify(old, crl=crl_of(old[0]))[0]
            title = "The next issuing key"
            await asyncio.to_thread(ceremony.do, title, last=1)
            await asyncio.to_thread(compare_and_sign, ceremony)
            await asyncio.to_thread(ceremony.do, title, first=1, last=2)
            assert room.roles() == {FIRST: "past", SECOND: "current"}
            new = await issued(requester, "new.example.test")
            assert room.verify(new, crl=crl_of(new[0]))[0]
            await revoke(requester, old[0])
            refused, _, trimmed = await asyncio.to_thread(ceremony.do, title, first=2)
            by_hand = f"vault write transit-ca/keys/{KEY}/config min_decryption_version=2"
            assert by_hand in refused
            assert "min_available_version" in trimmed
            assert room.roles() == {FIRST: "retired", SECOND: "current"}
            last = await issued(requester, "last.example.test")
            assert room.verify(last, crl=crl_of(last[0]))[0]
    is_content, said = room.verify(old, crl=None)
    assert is_content, said
    anchor = x509.load_pem_x509_certificate(root.read_bytes())
    assert old[1].issuer == new[1].issuer == anchor.subject
    kept = {one.name for one in (room.broker.state / "keys").glob("ca-*")}
    assert kept == set()


def test_every_block_has_an_owner_and_a_test() -> None:
    """Sections that stand on the page are those that are done here, each block by one person."""
    sections = Page().sections
    assert list(sections) == [
        "1. Mount and policies",
        "2. The root",
        "3. The request",
        "4. The comparison",
        "5. The signature",
        "6. Accepting",
        "7. What is checked",
        "The next issuing key",
    ]
    for blocks in sections.values():
        assert {who for who, _ in blocks} <= set(PEOPLE)


def test_exchanged_request_is_noticed(room: Room, ceremony: Ceremony) -> None:
    """By the groups that Anna reads, or by the subject that Ben sees: before he signs anything."""
    ceremony.do("1. Mount and policies")
    ceremony.do("3. The request", last=1)
    *_, read_aloud = ceremony.do("3. The request", first=1)
    for subject, is_agreed in (("/O=Corp/CN=Corp Issuing 1", True), ("/CN=Somebody Else", False)):
        subprocess.run(
            ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-keyout", str(room.directory / "stranger.key"), "-subj", subject,
             "-out", str(room.medium / "issuing.csr")],
            check=True, capture_output=True,
        )  # fmt: skip
        (computed,) = ceremony.do("4. The comparison")
        assert groups(computed) != groups(read_aloud)
        assert ("Corp Issuing 1" in computed) == is_agreed


@pytest.fixture
def vault_room(tmp_path: Path, vault: Vault) -> Room:
    """A broker that makes both keys in Vault."""
    return Room(tmp_path, vault, root_in_vault=True)


def policy_of(identity: str) -> str:
    """Return the policy of an identity such as ``root-serve``."""
    mount, _, who = identity.partition("-")
    return f"penstock.transit-{mount}.{who}"


def test_root_in_vault_is_used_only_while_its_tokens_are_there(vault_room: Room) -> None:
    """As the page says: Ben brings them for the ceremony; without them nothing is signed by it."""
    room = vault_room
    script = room.broker.run("vault", "setup", "--print").stdout
    environment = room.environments()["Anna"]
    environment |= {"VAULT_ADDR": room.vault.url, "VAULT_CACERT": str(room.vault.ca_bundle)}
    subprocess.run(["sh", "-c", script], env=environment, check=True, capture_output=True)

    def bring(name: str) -> None:
        path = room.run_folder / f"{name}.token"
        path.write_text(room.vault.token(policy_of(name)), "ascii")

    bring("ca-serve")
    bring("ca-rotate")
    room.broker.run("ca", "init", "--upstream", "local", status=1)
    bring("root-serve")
    bring("root-rotate")
    shown = room.broker.json("ca", "init", "--upstream", "local")
    assert shown["root_key"] == "vault:transit-root/penstock.local.root#1"
    for name in ("root-serve", "root-rotate"):
        (room.run_folder / f"{name}.token").unlink()
    refused = room.broker.run("ca", "rotate", "prepare", "local", status=1)
    assert "root-serve.token cannot be read" in refused.stderr
    assert room.roles() == {FIRST: "current"}
    bring("root-serve")
    room.broker.run("ca", "rotate", "prepare", "local")
    assert room.roles() == {FIRST: "current", SECOND: "next"}
