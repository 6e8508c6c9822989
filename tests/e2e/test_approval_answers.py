"""Answers to requests for approval at a real broker: who may give one, and what each comes to."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from tests.deployments.operators import Pair, PeopleCa, asking
from tests.e2e.front_door import FARM_KEYS, FrontDoor, running
from tests.e2e.requester import TRUSTED_ZONE, Client, check_refusal, fresh_name
from tests.peers import process
from tests.unit.protocol.builders import make_csr

pytestmark = pytest.mark.e2e

ZONE: Final = f"person.{TRUSTED_ZONE}"

RULE: Final = {
    "name": "person",
    "because": "these hosts speak for the company",
    "names": [f"**.{ZONE}"],
    "approval": {},
}

PEOPLE: Final = {
    "anna": {"default": ["approver"]},
    "ben": {"other": ["approver"]},
    "carl": {"default": ["approver"]},
    "sven": {"*": ["security"]},
}
"""Who is known to the broker, with their roles."""


@dataclass
class Answering:
    """A broker whose policy wants people, and the people."""

    door: FrontDoor
    port: int
    pairs: dict[str, Pair]

    def says(self, person: str, word: str, approval: str, reason: str) -> tuple[int, Any]:
        """Have somebody answer by the operator API; return status and answer."""
        with asking(self.port, self.door.penstock.ca_bundle, pair=self.pairs[person]) as api:
            given = {"approval": approval, "reason": reason}
            return api.ask("POST", f"/v1/approval/{word}", given)

    def yes(self, person: str, approval: str) -> None:
        """Have somebody approve."""
        status, said = self.says(person, "approve", approval, "known to me")
        assert (status, said.get("status")) == (200, "approved"), said

    def command(self, person: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Have somebody give a command over the network."""
        pair, penstock = self.pairs[person], self.door.penstock
        way = (
            "--server", f"https://127.0.0.1:{self.port}", "--anchors", str(penstock.ca_bundle),
            "--client-certificate", str(pair.certificate), "--client-key", str(pair.key),
        )  # fmt: skip
        return subprocess.run(
            [*penstock.program(), *way, *words],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=penstock.directory,
            env=penstock.environment(),
            check=False,
        )

    def about(self, name: str) -> dict[str, str]:
        """Return the requests about a name, and how each stands."""
        with asking(self.port, self.door.penstock.ca_bundle, pair=self.pairs["sven"]) as api:
            status, rows = api.ask("GET", "/v1/approval/list?status=all")
        assert status == 200, rows
        return {row["approval"]: row["status"] for row in rows if row["names"] == [name]}


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answering]:
    """Run it."""
    folder = tmp_path_factory.mktemp("answers")
    ca, port = PeopleCa(folder / "ca"), process.free_port()
    operators = {
        "anchors": str(ca.anchors),
        "people": {
            name: {"certificates": [f"email:{name}@corp.example"], "roles": roles}
            for name, roles in PEOPLE.items()
        },
    }
    with running(
        folder / "broker",
        listen={"operators": {"address": f"127.0.0.1:{port}"}},
        more={"operators": operators},
        policy={"rules": [RULE]},
        limits={"rates": {"new_accounts": "off"}},
    ) as door:
        yield Answering(door, port, {name: ca.person(name) for name in PEOPLE})


def filed(client: Client, name: str) -> str:
    """Ask for a name that needs a person, and return the id of the request."""
    refused = client.order(name)
    assert (refused.status, refused.problem) == (403, "userActionRequired"), refused.body
    return str(refused.json()["instance"]).rpartition("/")[2]


def test_suspended_approval_holds_open_orders_until_it_is_resumed(answering: Answering) -> None:
    """Neither the order that is open nor another one goes on; resumed, the open one is issued."""
    client, name = answering.door.trusted(), fresh_name(ZONE)
    approval = filed(client, name)
    answering.yes("anna", approval)
    _, order = client.new_order(name)
    status, said = answering.says("sven", "suspend", approval, "a letter came")
    assert (status, said["status"]) == (200, "suspended")
    for refused in (client.finalize(order, make_csr([name])), client.order(name)):
        assert refused.status == 403, refused.body
        assert "the approval is suspended" in refused.json()["detail"]
        assert "a letter came" in refused.json()["detail"]
    assert client.order(fresh_name()).status == 201
    # Whoever withholds does not open again: that is an approver's to say.
    assert answering.says("sven", "resume", approval, "it was forged")[0] == 403
    status, said = answering.says("anna", "resume", approval, "it was forged")
    assert (status, said["status"]) == (200, "approved")
    assert client.finalize(order, make_csr([name])).json()["status"] == "valid"


def test_denial_sticks(answering: Answering) -> None:
    """The next ask is told so and files nothing anew; another name is asked about."""
    client, name = answering.door.trusted(), fresh_name(ZONE)
    approval = filed(client, name)
    assert answering.about(name) == {approval: "waiting"}
    status, said = answering.says("anna", "deny", approval, "the host is retired")
    assert (status, said["status"]) == (200, "denied")
    for _ in range(2):
        refused = client.order(name)
        check_refusal(refused, "unauthorized", 403, r"was not approved, see .*the host is retired")
        assert approval in refused.json()["detail"]
    assert answering.about(name) == {approval: "denied"}
    other = fresh_name(ZONE)
    asked = filed(client, other)
    assert answering.about(other) == {asked: "waiting"}


def test_requester_approves_nothing_of_their_own(answering: Answering) -> None:
    """By the API and by the command; a colleague does, and then the order is made."""
    client, name = answering.door.client(), fresh_name(ZONE)
    bound = client.register(mac_key=FARM_KEYS["default"], contact=["mailto:anna@corp.example"])
    assert bound.status == 201
    approval = filed(client, name)
    says = "operator:anna answers for this request, somebody else has to decide on it"
    status, said = answering.says("anna", "approve", approval, "it is mine")
    assert (status, said["detail"]) == (403, says)
    done = answering.command("anna", "approval", "approve", approval, "--reason", "it is mine")
    assert done.returncode == 1
    assert says in done.stderr
    assert client.order(name).status == 403
    answering.yes("carl", approval)
    assert client.order(name).status == 201


def test_approver_of_one_community_approves_there_alone(answering: Answering) -> None:
    """Elsewhere they are told what is told of a request that never was."""
    names = fresh_name(ZONE), fresh_name(ZONE)
    clients = answering.door.trusted(), answering.door.trusted("other")
    here, there = (filed(*one) for one in zip(clients, names, strict=True))
    for person, approval in (("ben", here), ("anna", there)):
        status, said = answering.says(person, "approve", approval, "known to me")
        never = answering.says(person, "approve", "f" * len(approval), "known to me")
        assert status == 403
        assert (403, said["detail"].replace(approval, "")) == (
            never[0],
            never[1]["detail"].replace("f" * len(approval), ""),
        )
    assert [one.order(name).status for one, name in zip(clients, names, strict=True)] == [403, 403]
    answering.yes("anna", here)
    answering.yes("ben", there)
    assert [one.order(name).status for one, name in zip(clients, names, strict=True)] == [201, 201]
