"""A freeze met by stock certbot at a real broker, and owners that a rule demands.

Nothing new is issued within a second of the command; what was issued is read and revoked.
"""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.deployments.operators import PeopleCa
from tests.deployments.penstock import Penstock
from tests.peers import process
from tests.peers.certbot import Certbot
from tests.peers.client import ClientFailed, ExternalAccount, Obtained

pytestmark = pytest.mark.peers

NAME: Final = "www.frozen.example.test"
OWNED: Final = "www.owned.example.test"
RULE: Final = {
    "name": "somebody-answers",
    "because": "these hosts face the Internet",
    "names": ["**.owned.example.test"],
    "owner": "required",
}
PEOPLE: Final = {"olga": ["operator"], "sven": ["security"]}


class Frozen:
    """A broker that certbot asks, and the people who may stop it."""

    def __init__(self, tmp: Path) -> None:
        self.http_port, self.operator_port = process.free_port(), process.free_port()
        people = PeopleCa(tmp / "people")
        self.pairs = {name: people.person(name) for name in PEOPLE}
        self.penstock = Penstock(
            tmp,
            validation_http_port=self.http_port,
            hosts={NAME: ["127.0.0.1"], OWNED: ["127.0.0.1"]},
            policy={"rules": [RULE]},
            community={"ask": "pki@corp.example"},
            listen={"operators": {"address": f"127.0.0.1:{self.operator_port}"}},
            more={
                "operators": {
                    "anchors": str(people.anchors),
                    "people": {
                        name: {
                            "certificates": [f"email:{name}@corp.example"],
                            "roles": {"*": roles},
                        }
                        for name, roles in PEOPLE.items()
                    },
                }
            },
        )

    def certbot(self, tmp: Path, binding: ExternalAccount | None = None) -> Certbot:
        """Return a certbot with an account of its own."""
        url, bundle = self.penstock.directory_url, self.penstock.ca_bundle
        return Certbot(tmp, url, bundle, external_account=binding)

    async def issue(self, certbot: Certbot, name: str) -> Obtained:
        """Have certbot get a certificate."""
        return await certbot.certonly_standalone(
            [name], http_port=self.http_port, options=["--force-renewal"]
        )

    async def refused(self, certbot: Certbot, name: str) -> str:
        """Have certbot fail, and return all that it says, its lines joined."""
        with pytest.raises(ClientFailed) as failed:
            await self.issue(certbot, name)
        return " ".join(f"{failed.value} {failed.value.output}".split())

    def command(self, person: str, *words: str, status: int = 0) -> str:
        """Have a person give a command over the network; return what it said."""
        pair = self.pairs[person]
        done = self.penstock.run(
            "--server", f"https://127.0.0.1:{self.operator_port}",
            "--anchors", str(self.penstock.ca_bundle),
            "--client-certificate", str(pair.certificate), "--client-key", str(pair.key),
            *words, status=status,
        )  # fmt: skip
        return done.stdout + done.stderr

    def ready(self) -> str:
        """Return what the readiness page says."""
        url = f"http://127.0.0.1:{self.penstock.health_port}/readyz"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return str(answer.read().decode())


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Frozen]:
    """A broker that can be frozen."""
    made = Frozen(tmp_path_factory.mktemp("frozen"))
    with made.penstock:
        yield made


async def test_certbot_is_stopped_and_revokes(frozen: Frozen, tmp_path: Path) -> None:
    """Over a restart; the sentence says whom to ask and nothing of why.

    An operator stops, and only the security team lets it go on.
    """
    certbot = frozen.certbot(tmp_path / "certbot")
    obtained = await frozen.issue(certbot, NAME)
    await asyncio.to_thread(
        frozen.command, "olga",
        "freeze", "community", "default", "--reason", "CVE-2026-0001 in the web tier",
    )  # fmt: skip
    said = await frozen.refused(certbot, NAME)
    assert "issuance is frozen for community 'default', ask pki@corp.example" in said
    assert "CVE-2026-0001" not in said

    await asyncio.to_thread(frozen.penstock.stop)
    await asyncio.to_thread(frozen.penstock.start)
    assert "issuance is frozen" in await frozen.refused(certbot, NAME)
    shown = await asyncio.to_thread(frozen.ready)
    assert "[!] frozen community 'default' since " in shown
    assert 'penstock_frozen{kind="community"} 1.0' in frozen.penstock.metrics()

    await certbot.revoke(obtained)
    rows: list[dict[str, Any]] = await frozen.penstock.a_json("cert", "list")
    assert [row["revoked"] is not None for row in rows if row["names"] == [NAME]] == [True]

    word = await asyncio.to_thread(
        frozen.command, "olga", "unfreeze", "community", "default", "--reason", "patched", status=1
    )
    assert "takes the role security" in word
    (row,) = await frozen.penstock.a_json("frozen")
    assert (row["by"], row["reason"]) == ("operator:olga", "CVE-2026-0001 in the web tier")
    await asyncio.to_thread(
        frozen.command, "sven", "unfreeze", "community", "default", "--reason", "all are patched"
    )
    await frozen.issue(certbot, NAME)
    assert "[!] frozen" not in await asyncio.to_thread(frozen.ready)


async def test_only_the_account_that_was_frozen_is_stopped(frozen: Frozen, tmp_path: Path) -> None:
    """Another account gets its certificate meanwhile."""
    first, other = frozen.certbot(tmp_path / "first"), frozen.certbot(tmp_path / "other")
    await frozen.issue(first, NAME)
    (newest, *_) = await frozen.penstock.a_json("account", "list")
    await frozen.penstock.a_json(
        "freeze", "account", newest["account"], "--until", "2h", "--reason", "a stolen key?",
        "--tell", "we look into something", "--ask", "soc@corp.example",
    )  # fmt: skip
    said = await frozen.refused(first, NAME)
    assert "frozen for this account, ask soc@corp.example (we look into something)" in said
    await frozen.issue(other, NAME)
    (row,) = await frozen.penstock.a_json("frozen")
    assert (row["what"], row["id"]) == ("account", newest["account"])
    assert row["until"] is not None
    await frozen.penstock.a_json(
        "unfreeze", "account", newest["account"], "--reason", "it was a test key"
    )


async def test_rule_wants_an_owner_and_everything_of_one_is_found(
    frozen: Frozen, tmp_path: Path
) -> None:
    """A key that nobody answers for orders nothing there; named, its account has that owner."""
    run = frozen.penstock.a_json
    minted = await run("eab", "mint", "--id", "web-team", "--reason", "a new team")
    binding = ExternalAccount("web-team", minted["mac_key"])
    certbot = frozen.certbot(tmp_path / "certbot", binding)
    said = await frozen.refused(certbot, OWNED)
    assert "wants an owner, and nobody answers for this requester yet" in said
    await run(
        "owner", "set", "eab", "web-team", "--owner", "team-web", "--contact", "web@corp.example"
    )
    obtained = await frozen.issue(certbot, OWNED)
    assert obtained.names() == [OWNED]

    shown = await run("owner", "show", "team-web")
    things = {(one["what"], one["by"]): one for one in shown["things"]}
    assert set(things) == {("account", "eab-key"), ("eab-key", "own")}
    assert [one["names"] for one in shown["certificates"]] == [[OWNED]]
    (listed,) = await run("owner", "list", "web@corp")
    assert (listed["owner"], listed["accounts"], listed["eab_keys"]) == ("team-web", 1, 1)
    account = await run("account", "show", things["account", "eab-key"]["id"])
    assert (account["owner"], account["contact"]) == ("team-web", "web@corp.example")
    explained = await asyncio.to_thread(
        frozen.penstock.run, "policy", "explain", OWNED, "--account", account["account"]
    )
    assert "owner: team-web" in explained.stdout
