"""What the planner and the gate ask: policies from text, and the lists that stand beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from broker.policy.document import PolicyDocument, parse_policy
from broker.protocol.csr import ParsedCsr

POLICY = """\
apiVersion: penstock.dev/v1
kind: Policy
community: default
names:
  allow: ["**.example.com"]
  deny: ["denied.example.com"]
  wildcards: true
challenges: [http-01, dns-01]
keys:
  allow: [ec-p256]
cap: 90d
profiles:
  server:
    description: TLS servers
    usages: [server-auth]
    upstreams: [{upstream: ca}]
  other:
    description: TLS servers from a profile of the CA's
    usages: [server-auth]
    upstreams: [{upstream: ca, profile: short}]
  private:
    description: TLS servers inside
    usages: [server-auth]
    upstreams: [{upstream: local}]
default_profile: server
trusted:
  - eab: [robot]
    names: ["**.robots.example.com"]
    wildcards: true
    profiles: [server, private]
    because: the robots run the zone
"""
"""Names below example.com from the CA by challenge, to the robot without one."""


@cache
def _parse(text: str, source: str) -> PolicyDocument:
    return parse_policy(text, source=source)


class FakePolicies:
    """``issuance.ports.Policies`` from text that a test can change."""

    def __init__(self) -> None:
        self._documents: dict[str, PolicyDocument] = {}
        self.set_sha256 = ""
        """Of the whole set that they are said to be in force with."""
        self.set(POLICY)

    def set(self, text: str) -> None:
        """Put *text* in force, for its community and for the lab."""
        self._documents["default"] = _parse(text, "default.yaml")
        lab = text.replace("community: default", "community: lab")
        self._documents["lab"] = _parse(lab, "lab.yaml")

    def change(self, before: str, after: str) -> None:
        """Put the standard policy in force with one part replaced."""
        assert before in POLICY, f"{before!r} is not in the policy"
        self.set(POLICY.replace(before, after))

    def current(self, community: str) -> PolicyDocument:
        """See the port."""
        return replace(self._documents[community], set_sha256=self.set_sha256)


class FakeSuffixes:
    """``issuance.ports.PublicSuffixes``: one label, and what is named here."""

    def is_public_suffix(self, name: str) -> bool:
        """See the port."""
        return "." not in name or name in {"co.example.com"}


class FakeInspector:
    """``issuance.ports.KeyInspector`` that knows the keys it is told of."""

    def __init__(self) -> None:
        self.weak: dict[str, str] = {}

    async def inspect(self, csr: ParsedCsr) -> Sequence[str]:
        """See the port."""
        found = self.weak.get(csr.spki_sha256)
        return (found,) if found is not None else ()

    async def inspect_key(self, spki_der: bytes) -> Sequence[str]:
        """See the port."""
        found = self.weak.get(hashlib.sha256(spki_der).hexdigest())
        return (found,) if found is not None else ()


class FakeAnchors:
    """``release.Anchors``; None where nothing is configured."""

    def __init__(self) -> None:
        self.ders: Sequence[bytes] | None = None
        self.wish: str | None = None

    def of(self, upstream: str, community: str) -> Sequence[bytes] | None:
        """See the port."""
        return self.ders

    def preferred_chain(self, upstream: str, community: str) -> str | None:
        """See the port."""
        return self.wish
