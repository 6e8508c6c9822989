"""Rules, and orders to ask them about, that hypothesis draws for the properties of rules."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from broker.policy.decisions import QuotaPer, Requester
from broker.policy.requesters import ClientCertificate
from broker.protocol.identifiers import parse_written_identifier
from tests.unit.policy.builders import eab as grant
from tests.unit.policy.builders import new_order, upstream

PATTERNS = ["**.a.example", "*.a.example", "www.a.example", "**.b.a.example", "**", "10.0.0.0/8",
            "@a.example", "@**.a.example", "Jane@a.example"]  # fmt: skip
NAMES = ["www.a.example", "b.a.example", "*.a.example", "c.b.a.example", "*.b.a.example",
         "jane@a.example", "jane@b.a.example", "10.1.2.3"]  # fmt: skip
TYPES = frozenset({"dns", "email", "ip"})
ALLOWED = {
    "allow": ["**.a.example", "@a.example", "@**.a.example", "10.0.0.0/8"],
    "wildcards": True,
}
TRUSTED = [
    {"eab": ["any"], "names": ["@**.a.example", "@a.example"], "profiles": ["server"],
     "because": "nothing proves an address"},
]  # fmt: skip
EAB = ["math", "arts", "law"]

ACCOUNTS = ["a" * 43, "b" * 43]
SPIFFE = "spiffe://a.example/web"
CERTIFICATES = [
    ClientCertificate(fingerprint="0" * 64, names=("build.a.example",)),
    ClientCertificate(fingerprint="1" * 64, names=(SPIFFE,)),
]

KINDS_OF_WHO: list[dict[str, st.SearchStrategy[Any]]] = [
    {"eab": st.lists(st.sampled_from(EAB), min_size=1, max_size=2, unique=True)},
    {"networks": st.just(["10.0.0.0/8"])},
    {"nodes": st.just(["*.web"])},
    {"accounts": st.lists(st.sampled_from(ACCOUNTS), min_size=1, unique=True)},
    {"clusters": st.just(["east"])},
    {"namespaces": st.sampled_from([["shop"], ["bank", "shop"]])},
    {"service_accounts": st.sampled_from([["shop/web"], ["bank/web"]])},
    {"client_certificates": st.sampled_from([["sha256:" + "0" * 64], [SPIFFE]])},
    {"client_names": st.just(["*.a.example"])},
]


@st.composite
def described(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a description of requesters, of one kind more often than of two."""
    kinds = draw(st.lists(st.sampled_from(KINDS_OF_WHO), min_size=1, max_size=2))
    return {key: draw(value) for kind in kinds for key, value in kind.items()}


Who = described() | st.lists(described(), min_size=1, max_size=2).map(lambda ways: {"any": ways})

Quota = st.fixed_dictionaries(
    {
        "per": st.sampled_from([str(per) for per in QuotaPer]),
        "limit": st.sampled_from(["1/1d", "5/1d", "5/7d"]),
    },
    optional={
        "kept_for_renewals": st.sampled_from([0.2, 0.5]),
        "upstreams": st.lists(st.sampled_from(["ca", "other"]), min_size=1, unique=True),
    },
)

Quotas = st.lists(Quota, min_size=1, max_size=2)

Refusals = st.fixed_dictionaries(
    {},
    optional={
        "refuse": st.just("not these"),
        "only": Who,
        "attestation": st.just(["approval"]),
    },
)
Approval = st.fixed_dictionaries(
    {"people": st.integers(1, 2), "holds": st.sampled_from(["7d", "90d"])},
    optional={
        "answer_within": st.sampled_from(["3d", "14d", "30d"]),
        "reproof": st.sampled_from(["30d", "60d"]),
        "on_withdrawal": st.sampled_from(["keep", "revoke"]),
        "evidence": st.lists(st.sampled_from(["form", "ticket"]), max_size=2, unique=True),
        "by": st.lists(
            st.sampled_from(["anna", "ben", "carl"]), min_size=2, max_size=3, unique=True
        ),
    },
)
Limits = st.fixed_dictionaries(
    {},
    optional={
        "cap": st.integers(1, 400).map(lambda days: f"{days}d"),
        "keys": st.lists(st.sampled_from(["ec-p256", "rsa-2048"]), min_size=1, unique=True),
        "challenges": st.lists(st.sampled_from(["http-01", "dns-01"]), min_size=1, unique=True),
        "usages": st.lists(
            st.sampled_from(["server-auth", "client-auth"]), min_size=1, unique=True
        ),
        "upstreams": st.lists(st.sampled_from(["ca", "other"]), min_size=1, unique=True),
        "renew_at": st.sampled_from([0.2, 0.5, 0.8]),
        "approval": Approval,
        "owner": st.just("required"),
        "quotas": Quotas,
    },
)
Both = st.tuples(Limits, Refusals).map(lambda parts: {**parts[0], **parts[1]})
Counting = st.fixed_dictionaries({"quotas": Quotas})
Demands = st.one_of(Limits, Counting, Refusals, Both).filter(bool)

Conditions = st.fixed_dictionaries(
    {},
    optional={
        "who": Who,
        "not_who": Who,
        "names": st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=2, unique=True),
        "profiles": st.just(["server"]),
        "when": st.sampled_from(
            ["eab == 'math'", "name.startsWith('www')", "names[3] == ''", "size(names) > 1"]
        ),
        "mode": st.sampled_from(["enforce", "warn"]),
        "renewals": st.sampled_from(["warn", "exempt"]),
    },
)
Days: st.SearchStrategy[dict[str, str]] = st.sampled_from(
    [
        {},
        {"from": "2026-11-01"},
        {"from": "2027-01-01"},
        {"until": "2026-11-22"},
        {"until": "2026-11-21"},
        {"from": "2026-11-01", "until": "2027-01-01"},
    ]
)
"""Orders are made on 22 November 2026."""

Rule = st.tuples(Conditions, Days, Demands).map(lambda parts: {**parts[0], **parts[1], **parts[2]})
Rules = st.lists(Rule, max_size=5)
Asking = st.fixed_dictionaries({"approval": Approval})
"""Rules that ask people about every order, so that several of them meet."""
Facts = st.builds(
    lambda texts, requester, is_renewal: new_order(
        identifiers=tuple(parse_written_identifier(text) for text in texts),
        eab=grant("any"),
        requester=requester,
        is_unchanged_renewal=is_renewal,
        upstreams=(upstream(identifier_types=TYPES), upstream("other", identifier_types=TYPES)),
    ),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True),
    st.builds(
        Requester,
        eab_key_id=st.none() | st.sampled_from(EAB),
        address=st.none() | st.sampled_from(["10.0.0.1", "192.0.2.1"]),
        node=st.none() | st.just("a.web"),
        attestation=st.none() | st.sampled_from(["token", "approval"]),
        thumbprint=st.sampled_from(ACCOUNTS),
        cluster=st.none() | st.just("east"),
        namespace=st.none() | st.just("shop"),
        service_account=st.none() | st.just("web"),
        client_certificate=st.none() | st.sampled_from(CERTIFICATES),
        owner=st.none() | st.just("the shop's people"),
    ),
    st.booleans(),
)
