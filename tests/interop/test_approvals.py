"""Orders that need a person, with stock clients against a real broker and its built-in CA.

What a person at a terminal sees is the sentence and its URL; once somebody has approved the request
the very same command line gets its certificate.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import ssl
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from tests.deployments.operator import Operator
from tests.deployments.operators import PeopleCa, asking
from tests.deployments.penstock import BuiltInCa, Penstock, secret
from tests.deployments.requester import Requester
from tests.deployments.trusting import LAB, lab_policy
from tests.fakes.acme_client import make_csr
from tests.peers import process
from tests.peers.acme_library import AcmeLibrary
from tests.peers.certbot import Certbot
from tests.peers.client import ClientFailed, DnsUpdates, ExternalAccount, Obtained
from tests.peers.lego import Lego
from tests.peers.stock import HTTP_01, Place

pytestmark = pytest.mark.peers

ZONE: Final = "people.example.test"
BOARD: Final = "board.example.test"
BRIEF: Final = "brief.example.test"
SENTENCE: Final = "has to be approved by a person, and the request waits for that"

RULES: Final[list[dict[str, Any]]] = [
    {
        "name": "one-person",
        "because": "these hosts speak for the company",
        "names": [f"**.{ZONE}"],
        "approval": {"holds": "30d", "evidence": ["ticket"]},
    },
    {
        "name": "revoked-when-withdrawn",
        "because": "these hosts speak for the board",
        "names": [f"**.{BOARD}"],
        "approval": {"people": 2, "on_withdrawal": "revoke"},
    },
    {
        "name": "soon-over",
        "because": "the tests have little time",
        "names": [f"**.{BRIEF}"],
        # Between falling due and its end lie nine seconds, in which it is renewed.
        "approval": {"holds": "12s", "reproof": "3s", "evidence": ["ticket"]},
    },
]

PEOPLE: Final = {
    "anna": ["approver"],
    "ben": ["approver"],
    "olga": ["operator"],
    "sven": ["security"],
}
"""Who is known to the broker, with their roles."""

Run = Callable[[str], Awaitable[Obtained]]


class Approving:
    """A broker whose policy wants people, and where its clients answer challenges."""

    def __init__(self, tmp: Path) -> None:
        self.client_port, self.operator_port = process.free_port(), process.free_port()
        people = PeopleCa(tmp / "people")
        self.pairs = {name: people.person(name) for name in PEOPLE}
        names = [f"{client}.{ZONE}" for client in ("certbot", "lego", "acme", "raw")]
        hosts = {name: ["127.0.0.1"] for name in [*names, f"raw.{BOARD}"]}
        # Declared, so that nobody who could approve has minted it.
        self.mac = base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()
        self.penstock = Penstock(
            tmp,
            validation_http_port=self.client_port,
            hosts=hosts,
            policy={
                "rules": RULES,
                "trusted": [
                    {
                        "eab": ["raw"],
                        "names": [f"**.{BOARD}"],
                        "profiles": ["server"],
                        "because": "the tests run the zone",
                    }
                ],
            },
            more_policies=[
                {
                    **lab_policy(),
                    "names": {"allow": [f"**.{ZONE}"]},
                    "accounts": {"approval": {"evidence": ["call"]}},
                }
            ],
            built_in=BuiltInCa(options={"communities": ["default", LAB]}),
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
                },
                "communities": {
                    name: {"validation": self._validation(hosts)} for name in ("default", LAB)
                },
                "external_account_bindings": [
                    {"key_id": "raw", "mac_key": secret(tmp, "raw.mac", self.mac)}
                ],
            },
        )

    def _validation(self, hosts: dict[str, list[str]]) -> dict[str, Any]:
        return {
            "http_port": self.client_port,
            "hosts": hosts,
            "networks": {"allow": ["127.0.0.0/8"]},
        }

    @property
    def operator(self) -> Operator:
        """The operator socket of the broker."""
        return Operator(self.penstock.state / "operator.sock")

    async def says(self, person: str, word: str, approval: str, **given: Any) -> tuple[int, Any]:
        """Have a person answer by the operator API; return status and answer."""
        document = {"approval": approval, **given}

        def ask() -> tuple[int, Any]:
            anchors = self.penstock.ca_bundle
            with asking(self.operator_port, anchors, pair=self.pairs[person]) as api:
                return api.ask("POST", f"/v1/approval/{word}", document)

        return await asyncio.to_thread(ask)

    async def command(self, person: str, *words: str) -> Any:
        """Have a person give a command over the network, and return what it printed as JSON."""
        pair = self.pairs[person]
        return await self.penstock.a_json(
            "--server", f"https://127.0.0.1:{self.operator_port}",
            "--anchors", str(self.penstock.ca_bundle),
            "--client-certificate", str(pair.certificate), "--client-key", str(pair.key), *words,
        )  # fmt: skip

    def page(self, url: str) -> str:
        """Return the page at a URL, as a browser that trusts the broker shows it."""
        context = ssl.create_default_context(cafile=str(self.penstock.ca_bundle))
        with urllib.request.urlopen(url, context=context, timeout=10) as answer:
            assert answer.headers["Content-Type"].startswith("text/html")
            return str(answer.read().decode())

    def runs(self, tmp: Path) -> dict[str, Run]:
        """Return the command line of each client, the same each time."""
        url, bundle = self.penstock.directory_url, self.penstock.ca_bundle
        certbot, lego = Certbot(tmp / "certbot", url, bundle), Lego(tmp / "lego", url, bundle)
        place = Place(
            address="127.0.0.1",
            http_port=self.client_port,
            tls_port=self.client_port,
            updates=DnsUpdates("127.0.0.1", 53, "unused", "dW51c2Vk"),
        )
        library = AcmeLibrary(tmp / "acme", url, bundle, place)
        return {
            "certbot": lambda name: certbot.certonly_standalone([name], http_port=self.client_port),
            "lego": lambda name: lego.run_http([name], http_port=self.client_port),
            "acme": lambda name: library.obtain([name], HTTP_01),
        }


@pytest.fixture(scope="module")
def approving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Approving]:
    """A broker whose policy wants people."""
    made = Approving(tmp_path_factory.mktemp("approving"))
    with made.penstock:
        yield made


async def refused(run: Run, name: str) -> str:
    """Have a client fail, and return all that it says, its lines joined."""
    with pytest.raises(ClientFailed) as failed:
        await run(name)
    return " ".join(f"{failed.value} {failed.value.output}".split())


@pytest.mark.parametrize("client", ["certbot", "lego", "acme"])
async def test_client_shows_the_url_and_succeeds_after_the_approval(
    approving: Approving, tmp_path: Path, client: str
) -> None:
    """The next ordinary run; a run before joins the request."""
    name = f"{client}.{ZONE}"
    run = approving.runs(tmp_path)[client]
    said = await refused(run, name)
    assert SENTENCE in said
    (request,) = [one for one in await approving.operator.ask("approval_list")
                  if one["names"] == [name]]  # fmt: skip
    url = f"{approving.penstock.external_url}/acme/default/approval/{request['approval']}"
    assert url in said
    page = await asyncio.to_thread(approving.page, url)
    assert name in page
    assert "It waits for one person to approve it; you need do nothing" in page

    assert url in await refused(run, name)
    listed = await approving.operator.ask("approval_list", status="all")
    assert [one["approval"] for one in listed if one["names"] == [name]] == [request["approval"]]

    approved = await approving.command(
        "anna", "approval", "approve", request["approval"],
        "--evidence", "ticket=https://tickets.example.test/7", "--reason", "called back",
    )  # fmt: skip
    assert approved["status"] == "approved"
    assert "It is approved." in await asyncio.to_thread(approving.page, url)
    obtained = await run(name)
    assert obtained.names() == [name]
    order = next(
        one for one in await approving.operator.ask("order_list") if one["names"] == [name]
    )
    shown = await approving.operator.ask("order_show", order_id=order["order"])
    assert shown["decision"]["approvals"] == [request["approval"]]


async def test_approval_without_its_evidence_is_refused(approving: Approving) -> None:
    """By the command, with what is missing; the request waits on."""
    async with requester(approving) as raw:
        await raw.register()
        answer = await raw.order(f"raw.{ZONE}")
    document = answer.json()
    assert (answer.status, answer.problem) == (403, "userActionRequired")
    assert document["instance"] in document["detail"]
    approval = document["instance"].rpartition("/")[2]
    status, said = await approving.says("anna", "approve", approval)
    assert status >= 400
    assert "evidence of kind 'ticket' is missing" in json.dumps(said)
    # Once there are people who decide, whoever owns the machine is none of them.
    done = await asyncio.to_thread(
        approving.penstock.run, "approval", "approve", approval, status=1
    )
    assert "approve" in done.stderr
    assert "It waits for one person" in await asyncio.to_thread(
        approving.page, document["instance"]
    )


async def test_account_is_let_in_by_people(approving: Approving, tmp_path: Path) -> None:
    """A client that keeps its key comes again as it is; one that makes a new key gets a binding."""
    url = f"{approving.penstock.external_url}/acme/{LAB}/directory"
    lego = Lego(tmp_path / "lego", url, approving.penstock.ca_bundle)
    names = [f"lego.{ZONE}"]

    def run(client: Lego) -> Awaitable[Obtained]:
        return client.run_http(names, http_port=approving.client_port)

    said = await refused(lambda _: run(lego), names[0])
    assert "the account has to be approved by a person" in said
    (request,) = await approving.operator.ask("approval_list", community=LAB)
    assert request["kind"] == "account"
    assert f"{url.removesuffix('directory')}approval/{request['approval']}" in said
    approved = await approving.command(
        "anna", "approval", "approve", request["approval"], "--evidence", "call=number on file",
        "--name", f"**.{ZONE}",
    )  # fmt: skip
    assert (await run(lego)).names() == names
    listed = await approving.operator.ask("eab_list", community=LAB)
    assert [one["key_id"] for one in listed] == [approved["key_id"]]
    shown = await approving.operator.ask("approval_show", approval=request["approval"])
    assert "mac_key" not in shown

    again = Lego(tmp_path / "again", url, approving.penstock.ca_bundle)
    await refused(lambda _: run(again), names[0])
    (request,) = await approving.operator.ask("approval_list", community=LAB)
    _, made = await approving.says(
        "ben", "approve", request["approval"], evidence=["call=number on file"]
    )
    binding = ExternalAccount(made["key_id"], made["mac_key"])
    another = Lego(
        tmp_path / "another", url, approving.penstock.ca_bundle, external_account=binding
    )
    assert (await run(another)).names() == names


async def test_withdrawal_ends_open_orders_and_revokes(approving: Approving) -> None:
    """What was issued is revoked, what is open is never issued; a guess finds nothing."""
    name = f"raw.{BOARD}"
    async with requester(approving) as raw:
        await raw.bind("raw", approving.mac)
        instance = (await raw.order(name)).json()["instance"]
        approval = instance.rpartition("/")[2]
        await two_say_yes(approving, approval)
        placed = await raw.request(name)
        assert await placed.settled() == "valid"
        leaf = (await placed.chain())[0]
        assert not await asyncio.to_thread(is_revoked, leaf)
        opened = (await raw.order(name)).json()
        assert opened["status"] == "ready"
        withdrawn = await approving.command(
            "sven", "approval", "withdraw", approval, "--reason", "the contract has ended"
        )
        assert withdrawn["status"] == "withdrawn"
        answer = await raw.finalize(opened, make_csr([name]))
        assert (answer.status, answer.problem) == (403, "unauthorized")
        assert "the approval was withdrawn" in answer.json()["detail"]
        assert "the contract has ended" in answer.json()["detail"]
    await asyncio.to_thread(
        process.wait_until, lambda: is_revoked(leaf), 30, "the revocation list has it"
    )
    # The list has it before the broker has put it on record.
    words = ("cert", "show", leaf.fingerprint(hashes.SHA256()).hex())
    await asyncio.to_thread(
        process.wait_until,
        lambda: approving.penstock.json(*words)["revoked"] is not None,
        30,
        "the broker knows of the revocation",
    )
    with pytest.raises(urllib.error.HTTPError, match="404"):
        await asyncio.to_thread(approving.page, instance.replace(approval, "0" * 32))


async def test_approval_falls_due_is_renewed_and_ends(approving: Approving) -> None:
    """By the clock alone; an ask after its end is another request, which names this one."""
    name = f"www.{BRIEF}"
    async with requester(approving) as raw:
        await raw.register()
        instance = (await raw.order(name)).json()["instance"]
        approval = instance.rpartition("/")[2]
        given = {"evidence": ["ticket=https://tickets.example.test/8"]}
        await approving.says("anna", "approve", approval, **given)
        await shows(approving, instance, "has to be approved anew")
        due = await raw.order(name)
        assert (due.status, due.problem) == (403, "userActionRequired")
        assert due.json()["instance"] == instance
        listed = await approving.operator.ask("approval_list")
        assert [one["status"] for one in listed if one["approval"] == approval] == ["due"]
        status, said = await approving.says("ben", "renew", approval)
        assert status >= 400
        assert "evidence of kind 'ticket' is missing" in json.dumps(said)
        _, renewed = await approving.says("ben", "renew", approval, **given)
        assert renewed["status"] == "approved"
        await shows(approving, instance, "Its time is over")
        again = (await raw.order(name)).json()["instance"]
        assert again != instance
        shown = await approving.operator.ask("approval_show", approval=again.rpartition("/")[2])
        assert shown["earlier"] == approval


async def shows(approving: Approving, url: str, text: str) -> None:
    """Wait until the page at *url* says so."""
    await asyncio.to_thread(
        process.wait_until, lambda: text in approving.page(url), 30, f"the page says {text!r}"
    )


async def two_say_yes(approving: Approving, approval: str) -> None:
    """Have two people approve, after all that are refused were."""
    for person in ("olga", "sven"):
        status, _ = await approving.says(person, "approve", approval)
        assert status == 403, person
    _, first = await approving.says("anna", "approve", approval)
    assert first["status"] == "waiting"
    status, again = await approving.says("anna", "approve", approval)
    assert status >= 400
    assert "another person has to say so too" in json.dumps(again)
    _, second = await approving.says("ben", "approve", approval)
    assert second["status"] == "approved"
    assert [one["person"] for one in second["answers"]] == ["operator:anna", "operator:ben"]


def is_revoked(leaf: x509.Certificate) -> bool:
    """Return whether the revocation list that the certificate points to has it."""
    points = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    (url,) = (one.full_name[0].value for one in points)
    crl = x509.load_der_x509_crl(process.get(url))
    return crl.get_revoked_certificate_by_serial_number(leaf.serial_number) is not None


def requester(approving: Approving) -> Requester:
    """Return a raw client; it has no account yet."""
    return Requester(approving.penstock.directory_url, approving.penstock.ca_bundle)
