"""One delivery, from the wish for a CSR to the server that serves the certificate."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents import wire
from agents.config import Absent, AgentConfig, CertificateSection, LookSection
from agents.log import Log
from agents.mailbox import Outbox
from agents.records import Records
from agents.renew import Renewals
from agents.state import State
from agents.wire import Message
from tests.fakes.agent_config import make_certificate, make_config
from tests.fakes.node_clock import NodeClock
from tests.fakes.node_hands import FakeHands

LOOK = LookSection(host="127.0.0.1", port=443, server_name=None)


class Node:
    """A node in a folder; a second one on it is the same after a restart."""

    def __init__(
        self,
        tmp_path: Path,
        *sections: CertificateSection,
        hands: FakeHands | None = None,
    ) -> None:
        self.config: AgentConfig = make_config(sections or [make_certificate("www", look=LOOK)])
        state = State(str(tmp_path))
        self.hands = hands or FakeHands()
        self.records = Records(state.certificates)
        self.outbox = Outbox(state.outbox)
        self.done: list[str] = []
        clock = NodeClock()
        self.renewals = Renewals(
            config=lambda: self.config,
            records=self.records,
            outbox=self.outbox,
            hands=self.hands,
            done=lambda message: self.done.append(message.id),
            clock=clock,
            log=Log(clock, to=io.StringIO()),
        )

    def told(self, kind: str) -> list[dict[str, Any]]:
        """Return the bodies of what was told, each read as the broker reads it."""
        found = [message for _, message in self.outbox.next(10_000)]
        return [dict(wire.parse_message(m.document()).body) for m in found if m.kind == kind]

    def stages(self, name: str = "www") -> list[str]:
        """Return the stages that were told of a certificate."""
        return [one["stage"] for one in self.told("receipt") if one["certificate"] == name]


def wish(delivery: str = "d1", **more: Any) -> Message:
    """Return a wish for a CSR."""
    body = {
        "delivery": delivery,
        "certificate": "www",
        "names": ["www.example.test"],
        "key_kind": "ec-p256",
        "is_new_key": True,
        **more,
    }
    return Message(f"w-{delivery}", "want-csr", body, 1)


def sent(name: str = "www", generation: int = 1, **more: Any) -> Message:
    """Return a certificate on its way."""
    body = {
        "delivery": f"d-{name}-{generation}",
        "certificate": name,
        "generation": generation,
        "chain_pem": "chain",
        "spki_sha256": "spki 1",
        "longest_seconds": 0,
        "keep_previous_seconds": 0,
        **more,
    }
    return Message(f"c-{name}-{generation}", "certificate", body, 2)


def test_a_delivery_goes_through_every_stage(tmp_path: Path) -> None:
    """Check, install, reload, look; each told as soon as it is done."""
    node = Node(tmp_path)
    node.renewals.work([wish()])
    node.renewals.work([sent()])
    assert node.hands.did == [
        "csr www new", "check www", "install www", "reload www", "look www", "settle www",
    ]  # fmt: skip
    assert node.stages() == ["checked", "installed", "reloaded", "seen"]
    assert node.done == ["w-d1", "c-www-1"]
    record = node.records.get("www")
    assert (record.generation, record.fingerprint, record.is_seen) == (1, "fp 1", True)
    assert record.asked_delivery is None


def test_the_same_wish_again_has_the_same_csr(tmp_path: Path) -> None:
    """Also after a restart; another wish has another."""
    node = Node(tmp_path)
    node.renewals.work([wish()])
    node.renewals.work([wish()])
    again = Node(tmp_path, hands=node.hands)
    again.renewals.work([wish()])
    assert node.hands.did == ["csr www new"]
    assert len({one["csr_der"] for one in again.told("csr")}) == 1
    again.renewals.work([wish("d2", is_new_key=False)])
    assert node.hands.did == ["csr www new", "csr www kept"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"certificate": "mail"}, "is not configured"),
        ({"names": ["www.example.test", "admin.example.test"]}, "names asked for"),
        ({"names": []}, "names asked for"),
        ({"key_kind": "rsa-2048"}, "configured is ec-p256"),
    ],
    ids=["another-certificate", "more-names", "no-names", "another-key"],
)
def test_a_wish_for_something_else_is_refused_for_good(
    tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    """What the node wants stands in its own configuration; no key is made."""
    node = Node(tmp_path)
    node.renewals.work([wish(**more)])
    (told,) = node.told("unable")
    assert told["is_final"]
    assert said in told["reason"]
    assert node.hands.did == []
    assert node.done == ["w-d1"]


def test_a_key_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """The old one serves on."""
    node = Node(tmp_path, hands=FakeHands(failing={"csr www"}))
    node.renewals.work([wish()])
    assert node.told("unable")[0]["reason"] == "csr of www fails"


def test_a_certificate_that_fails_the_checks_touches_nothing(tmp_path: Path) -> None:
    """The end-to-end half of the tunnel."""
    node = Node(tmp_path, hands=FakeHands(failing={"check www"}))
    node.renewals.work([sent()])
    assert node.hands.did == ["check www"]
    assert node.stages() == ["refused"]
    assert node.records.get("www").fault == "check of www fails"


def test_one_that_is_not_configured_is_refused(tmp_path: Path) -> None:
    """A broker cannot make a node keep a certificate."""
    node = Node(tmp_path)
    node.renewals.work([sent("mail")])
    assert node.stages("mail") == ["refused"]
    assert node.hands.did == []


def test_an_install_that_fails_is_told_and_the_old_one_stays(tmp_path: Path) -> None:
    """As on a full disk."""
    node = Node(tmp_path, hands=FakeHands(failing={"install www"}))
    node.renewals.work([sent()])
    assert node.stages() == ["checked", "failed"]
    assert "reload www" not in node.hands.did


@pytest.mark.parametrize("step", ["reload", "look"])
def test_what_does_not_come_to_be_served_is_put_back(tmp_path: Path, step: str) -> None:
    """The old one is in place, reloaded, and told."""
    node = Node(tmp_path, hands=FakeHands(failing={f"{step} www"}))
    node.renewals.work([sent()])
    assert node.stages()[-1] == "restored"
    assert node.hands.did[-2:] == ["undo www", "reload www"]
    assert node.hands.placed == {}
    assert node.records.get("www").generation == 0
    assert f"{step} of www fails" in str(node.told("receipt")[-1]["note"])


def test_an_undo_that_fails_is_told_as_what_it_is(tmp_path: Path) -> None:
    """Somebody has to come."""
    node = Node(tmp_path, hands=FakeHands(failing={"look www", "undo www"}))
    node.renewals.work([sent()])
    assert node.stages()[-1] == "failed"
    assert "could not be put back" in node.told("receipt")[-1]["note"]


def test_generations_never_go_back(tmp_path: Path) -> None:
    """An older one that comes late, or again, is refused; a newer one is taken."""
    node = Node(tmp_path)
    node.renewals.work([sent(generation=2)])
    node.hands.did.clear()
    node.renewals.work([sent(generation=1)])
    node.renewals.work([sent(generation=2, delivery="other")])
    assert node.hands.did == []
    assert node.stages()[-2:] == ["refused", "refused"]
    node.renewals.work([sent(generation=3)])
    assert node.records.get("www").generation == 3


def test_after_a_restore_the_same_generation_may_come_again(tmp_path: Path) -> None:
    """It was never served."""
    node = Node(tmp_path, hands=FakeHands(failing={"look www"}))
    node.renewals.work([sent()])
    node.hands.failing.clear()
    node.renewals.work([sent(delivery="again")])
    assert node.stages()[-1] == "seen"


@pytest.mark.parametrize("stage", ["installing", "installed", "reloaded"])
def test_a_delivery_that_was_cut_off_goes_on(tmp_path: Path, stage: str) -> None:
    """The pair that lies in its place is not installed twice, and can still be taken back."""
    before = Node(tmp_path)
    checked = before.hands.check(before.config.certificates[0], dict(sent().body), Any)
    before.hands.install(before.config.certificates[0], checked, 0)
    record = before.records.get("www")
    record.begin("d-www-1", stage, "fp 1")
    before.records.put(record)
    before.hands.did.clear()
    after = Node(tmp_path, hands=before.hands)
    after.renewals.work([sent()])
    assert after.hands.did == ["check www", "reload www", "look www", "settle www"]
    assert after.stages()[-1] == "seen"


def test_one_cut_off_before_anything_was_placed_begins_anew(tmp_path: Path) -> None:
    """And so does one of which another pair lies there."""
    before = Node(tmp_path)
    record = before.records.get("www")
    record.begin("d-www-1", "installing", "fp 1")
    before.records.put(record)
    after = Node(tmp_path)
    after.renewals.work([sent()])
    assert "install www" in after.hands.did


def test_a_delivery_that_has_ended_is_told_again_and_not_done_again(tmp_path: Path) -> None:
    """The agent was cut off between the end and its being told."""
    Node(tmp_path).renewals.work([sent()])
    after = Node(tmp_path)
    after.renewals.work([sent()])
    assert after.hands.did == []
    assert after.stages()[-1] == "seen"
    assert after.done == ["c-www-1"]


def shared(*names: str) -> Sequence[CertificateSection]:
    """Return certificates of one server."""
    return [make_certificate(name, command="/bin/reload", look=LOOK) for name in names]


def test_those_that_share_a_server_are_reloaded_once(tmp_path: Path) -> None:
    """And each is looked at."""
    node = Node(tmp_path, *shared("a", "b", "c"))
    messages = [sent(name) for name in "abc"]
    assert len({node.renewals.key_of(one) for one in messages}) == 1
    node.renewals.work(messages)
    assert [one for one in node.hands.did if one.startswith("reload")] == ["reload a b c"]
    assert [node.stages(name)[-1] for name in "abc"] == ["seen"] * 3
    assert node.renewals.reloads == {"done": 1, "failed": 0}


def test_one_that_spoils_the_reload_is_found_and_the_others_are_served(tmp_path: Path) -> None:
    """All are taken back first, so that the server is never left with what it cannot load."""
    node = Node(tmp_path, *shared(*"abcde"), hands=FakeHands(failing={"reload c"}))
    node.renewals.work([sent(name) for name in "abcde"])
    ends = {name: node.stages(name)[-1] for name in "abcde"}
    assert ends == {"a": "seen", "b": "seen", "c": "restored", "d": "seen", "e": "seen"}
    assert node.hands.placed == {}


def test_one_that_is_not_seen_takes_no_other_back(tmp_path: Path) -> None:
    """Only its own old one is put back."""
    node = Node(tmp_path, *shared("a", "b"), hands=FakeHands(failing={"look a"}))
    node.renewals.work([sent("a"), sent("b")])
    assert (node.stages("a")[-1], node.stages("b")[-1]) == ("restored", "seen")
    assert "undo b" not in node.hands.did


def test_of_two_on_their_way_the_newest_is_taken(tmp_path: Path) -> None:
    """A node that was away is not led through every generation."""
    node = Node(tmp_path)
    node.renewals.work([sent(generation=1), sent(generation=2)])
    assert node.records.get("www").generation == 2
    assert node.hands.did.count("install www") == 1
    assert sorted(node.done) == ["c-www-1", "c-www-2"]


def test_a_reason_to_wait_is_kept_and_so_is_the_key(tmp_path: Path) -> None:
    """Whoever looks at a pod that does not start sees why; the certificate may come yet."""
    node = Node(tmp_path)
    node.renewals.work([wish()])
    asked = node.records.get("www")
    node.renewals.work([Message("w", "waits", {"certificate": "www", "reason": "limited"}, 3)])
    record = node.records.get("www")
    assert (record.fault, record.asked_key) == ("limited", asked.asked_key)
    assert record.asked_csr == asked.asked_csr is not None
    node.renewals.work([Message("w", "waits", {"certificate": "mail", "reason": "x"}, 4)])
    assert node.records.get("mail").fault is None


def test_a_reason_to_wait_that_comes_late_is_no_fault_of_what_is_served(tmp_path: Path) -> None:
    """It passed its certificate on the way; while the next one is asked for, it counts again."""
    node = Node(tmp_path)
    late = Message("w", "waits", {"certificate": "www", "reason": "limited"}, 3)
    node.renewals.work([wish()])
    node.renewals.work([sent()])
    node.renewals.work([late])
    assert (node.stages()[-1], node.records.get("www").fault) == ("seen", None)
    assert "w" in node.done
    node.renewals.work([wish("d2")])
    node.renewals.work([late])
    assert node.records.get("www").fault == "limited"


def test_a_refusal_forgets_the_key_that_waited(tmp_path: Path) -> None:
    """Never the one that serves."""
    node = Node(tmp_path)
    node.renewals.work([wish()])
    refusal = Message("r", "refused", {"certificate": "www", "reason": "not yours"}, 3)
    node.renewals.work([refusal])
    record = node.records.get("www")
    assert "forget www key" in node.hands.did
    assert (record.asked_csr, record.fault) == (None, "not yours")
    record.key = record.asked_key = "serving"
    node.hands.did.clear()
    node.renewals.work([refusal])
    assert node.hands.did == []


def test_a_refusal_leaves_the_key_that_is_being_put_in_place(tmp_path: Path) -> None:
    """It comes while the server is reloaded with that very key; on a token it would be gone."""
    refusal = Message("r", "refused", {"certificate": "www", "reason": "withdrawn"}, 3)

    class Meanwhile(FakeHands):
        """Hands during whose reload the refusal comes."""

        def reload(self, sections: Sequence[CertificateSection]) -> None:
            """Reload."""
            node.renewals.work([refusal])
            FakeHands.reload(self, sections)

    node = Node(tmp_path, hands=Meanwhile())
    node.renewals.work([wish()])
    node.renewals.work([sent()])
    assert "forget www key" not in node.hands.did
    assert node.stages()[-1] == "seen"
    assert node.records.get("www").fault is None
    assert "r" in node.done


def test_keys_and_servers_are_done_in_turn_with_their_own_kind(tmp_path: Path) -> None:
    """A CSR waits for no reload; certificates without a reload wait for nobody."""
    node = Node(tmp_path, *shared("a"), make_certificate("www"))
    assert node.renewals.key_of(wish()) == "key www"
    assert node.renewals.key_of(sent("www")) == "certificate www"
    assert node.renewals.key_of(sent("a")) == "reload command /bin/reload"


def test_tidying_up_that_fails_takes_nothing_back(tmp_path: Path) -> None:
    """The new one is served; what was there before lies about for longer."""
    node = Node(tmp_path, hands=FakeHands(failing={"settle www"}))
    node.renewals.work([sent()])
    assert node.stages()[-1] == "seen"


def test_nobody_looks_at_a_first_certificate_whose_server_waits_for_it(tmp_path: Path) -> None:
    """It is in place and not seen; the next one is looked at."""
    look = replace(LOOK, first=Absent.PASS)
    node = Node(tmp_path, make_certificate("www", look=look))
    node.renewals.work([sent()])
    assert "look www" not in node.hands.did
    assert node.stages()[-1] == "seen"
    assert "started once" in node.told("receipt")[-1]["note"]
    assert not node.records.get("www").is_seen
    node.renewals.work([sent(generation=2)])
    assert "look www" in node.hands.did
    assert node.records.get("www").is_seen


def test_a_server_that_should_serve_the_first_certificate_is_looked_at(tmp_path: Path) -> None:
    """As on a host: what is not seen is put back."""
    node = Node(tmp_path)
    node.hands.failing.add("look www")
    node.renewals.work([sent()])
    assert node.stages()[-1] == "restored"
