"""A broker that knows its requesters: two communities, minted keys, a declared one, and two CAs.

Nobody listens where the broker would look for http-01, so that whoever gets a certificate got it
without a challenge of ours.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from tests.deployments.cas import DNS_ZONE, WEB_ZONE, solvers
from tests.deployments.operator import Operator
from tests.deployments.penstock import AcmeCa, BuiltInCa, Penstock, secret
from tests.deployments.requester import Requester
from tests.peers import process
from tests.peers.bind import Bind
from tests.peers.client import ExternalAccount
from tests.peers.pebble import Pebble, PebbleOptions

LAB: Final = "lab"
"""The second community: every account of it has to bring a binding."""

LAB_ZONE: Final = "lab.example.test"
NARROW_NAME: Final = f"narrow.{WEB_ZONE}"

DECLARED: Final = "declared-farm"
"""Id of the key that stands in the configuration."""

MINTED: Final[Mapping[str, tuple[str, ...]]] = {
    "farm": ("--reusable",),
    "narrow": ("--reusable", "--name", NARROW_NAME, "--profile", "inner"),
    "doomed": ("--reusable",),
    "lab": ("--reusable", "--community", LAB),
}
"""Keys that are minted before the broker starts, since its policy names them."""


class Trusting:
    """The deployment."""

    def __init__(self, tmp: Path, stack: ExitStack, named: Bind) -> None:
        self.client_port, plain = process.free_port(), process.free_port()
        self.pebble = stack.enter_context(
            Pebble(
                tmp / "pebble",
                validation_http_port=plain,
                dns_server=named.address,
                options=PebbleOptions(nonce_reject_percent=15),
            )
        )
        anchors = tmp / "anchors.pem"
        anchors.write_bytes(self.pebble.root_pem())
        ca = AcmeCa(
            name="pebble",
            directory_url=self.pebble.directory_url,
            ca_bundle=self.pebble.ca_bundle,
            description="pebble",
            anchors=anchors,
            options={"solvers": solvers(tmp, named)},
        )
        self.declared_mac = base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()
        self.keys = {DECLARED: ExternalAccount(DECLARED, self.declared_mac)}
        """Keys by their name here; the ids of minted ones are the broker's."""
        policy: dict[str, Any] = {"trusted": []}
        lab = lab_policy()
        networks = {"allow": ["127.0.0.0/8"]}
        validation = {
            "http_port": self.client_port,
            "resolvers": [named.address],
            "networks": networks,
        }
        self.penstock = Penstock(
            tmp / "penstock",
            validation_http_port=self.client_port,
            plain_port=plain,
            upstreams=[ca],
            built_in=BuiltInCa(options={"communities": ["default", LAB]}),
            profiles={name: profile(upstream) for name, upstream in PROFILES.items()},
            policy=policy,
            more_policies=[lab],
            more={
                "communities": {
                    "default": {"validation": validation},
                    LAB: {"validation": validation, "external_account_required": True},
                },
                "external_account_bindings": [
                    {"key_id": DECLARED, "mac_key": secret(tmp, "declared.mac", self.declared_mac)}
                ],
            },
        )
        self.penstock.prepare()
        for name, options in MINTED.items():
            self.keys[name] = self.mint(*options, "--label", name)
        trusted = [self.keys[name].kid for name in (DECLARED, "farm", "narrow", "doomed")]
        policy["trusted"] = [trust(trusted, [f"**.{WEB_ZONE}", f"**.{DNS_ZONE}"], PROFILES)]
        lab["trusted"] = [trust([self.keys["lab"].kid], [f"**.{LAB_ZONE}"], ["server"])]
        self.penstock.write()
        stack.enter_context(self.penstock)

    @property
    def operator(self) -> Operator:
        """The operator socket of the broker."""
        return Operator(self.penstock.state / "operator.sock")

    def mint(self, *options: str) -> ExternalAccount:
        """Mint a key by the command, with ``--json``."""
        made = self.penstock.json("eab", "mint", *options, "--reason", "for the tests")
        return ExternalAccount(made["key_id"], made["mac_key"])

    def directory_of(self, community: str) -> str:
        """Return the URL of a community's own directory."""
        return f"{self.penstock.external_url}/acme/{community}/directory"

    def requester(self, community: str = "default") -> Requester:
        """Return a raw client; it has no account yet."""
        return Requester(self.directory_of(community), self.penstock.ca_bundle)


PROFILES: Final = {"public": "pebble", "inner": "local"}
"""Profiles of the default community: the CA that each is issued by."""


def profile(upstream: str) -> dict[str, Any]:
    """Return a profile that is issued by one upstream."""
    return {
        "description": f"from {upstream}",
        "cap": "47d",
        "usages": ["server-auth"],
        "upstreams": [{"upstream": upstream}],
    }


def trust(key_ids: list[str], names: list[str], profiles: Any) -> dict[str, Any]:
    """Return a rule of a policy that asks these keys' accounts for no proof."""
    return {
        "eab": key_ids,
        "names": names,
        "profiles": list(profiles),
        "wildcards": True,
        "because": "hosts of the tests",
    }


def lab_policy() -> dict[str, Any]:
    """Return the policy of the second community, before it trusts anybody."""
    return {
        "apiVersion": "penstock.dev/v1",
        "kind": "Policy",
        "community": LAB,
        "names": {"allow": [f"**.{LAB_ZONE}"]},
        "challenges": ["http-01"],
        "keys": {"allow": ["ec-p256", "rsa-2048"]},
        "cap": "7d",
        "profiles": {"server": {**profile("local"), "cap": "7d"}},
        "default_profile": "server",
    }
