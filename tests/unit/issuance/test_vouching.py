"""Rules for clusters and client certificates: no rule, no node."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from structlog.testing import capture_logs

from broker.issuance.cluster_rules import Cluster, ClusterRule
from broker.issuance.errors import Unreachable
from broker.issuance.joining_ports import Asking
from broker.issuance.node_ports import EnrolmentMethod
from broker.issuance.vouching import (
    CertificateRule,
    CertificateVoucher,
    ClusterVoucher,
    credential_refused,
)
from broker.protocol.problems import Problem
from broker.protocol.revocation_lists import (
    RevocationList,
    RevocationUnknown,
    parse_revocation_lists,
)
from broker.protocol.service_account_token import (
    ParsedToken,
    ServiceAccount,
    TokenRejected,
    TokenTerms,
    parse_key_set,
    verify_token,
)
from tests.fakes.clock import START, FakeClock
from tests.fakes.cluster_issuer import AUDIENCE, ISSUER, ClusterIssuer
from tests.fakes.cluster_pods import FakePods
from tests.unit.protocol.builders import NOW, Authority, name, private_key
from tests.unit.protocol.test_revocation_lists import in_pem, listed

ISSUER_OF_ONE = ClusterIssuer(private_key("ES256", "one"))


class KeysOf:
    """``ClusterTokens`` by the keys of an issuer that is at hand."""

    def __init__(self, issuer: ClusterIssuer) -> None:
        self._keys = parse_key_set(issuer.key_set())
        self._terms = TokenTerms(issuer.issuer, AUDIENCE)
        self.asked: list[str] = []

    async def verify(self, token: ParsedToken) -> ServiceAccount:
        """Return whose it is."""
        self.asked.append(token.text)
        return verify_token(token, self._keys, self._terms, START)


class Away:
    """``ClusterTokens`` of a cluster that cannot be asked."""

    async def verify(self, token: ParsedToken) -> ServiceAccount:
        """Raise."""
        raise Unreachable("the cluster is away")


def rule(**changes: Any) -> ClusterRule:
    """Return a rule for the postfix pods of the namespace mail, with changes."""
    made: dict[str, Any] = {
        "namespaces": ("mail",),
        "service_accounts": ("postfix",),
        "node": "{pod}.{namespace}.{cluster}",
        "community": "default",
        "names": ("{service_account}.{namespace}.svc.example", "mail.example"),
        "profiles": ("server",),
        "owner": "Mail",
        "contact": "mail@example.com",
    }
    return ClusterRule(**(made | changes))


def cluster(
    *rules: ClusterRule, tokens: Any = None, called: str = "prod", pods: Any = None
) -> Cluster:
    """Return a cluster with rules."""
    return Cluster(
        name=called,
        issuer=ISSUER,
        tokens=tokens or KeysOf(ISSUER_OF_ONE),
        rules=rules or (rule(),),
        pods=pods,
    )


def asking(credential: str | None = None, **more: Any) -> Asking:
    """Return a node that shows *credential*."""
    return Asking(
        method=EnrolmentMethod.KUBERNETES,
        node=more.pop("node", ""),
        csr_der=b"",
        credential=credential,
        **more,
    )


TOKEN = ISSUER_OF_ONE.token(START)


async def test_pod_is_what_its_rule_says() -> None:
    """Name, names, profiles and owner come from rule and token, nothing from the node itself."""
    voucher = ClusterVoucher([cluster()])
    grant = await voucher.vouch(asking(TOKEN, node="another.example"))
    assert grant.node == "postfix-0.mail.prod"
    assert grant.names == ("postfix.mail.svc.example", "mail.example")
    assert (grant.community, grant.profiles, grant.owner) == ("default", ("server",), "Mail")
    assert grant.takes_over
    assert (grant.namespace, grant.service_account) == ("mail", "postfix")


async def test_node_of_a_service_account_takes_nobody_s_place() -> None:
    """Several pods share an account, so one of them is no successor of another."""
    voucher = ClusterVoucher([cluster(rule(node="{service_account}.{namespace}.{cluster}"))])
    grant = await voucher.vouch(asking(TOKEN))
    assert (grant.node, grant.takes_over) == ("postfix.mail.prod", False)


async def test_first_rule_that_fits_counts() -> None:
    """Rules are an ordered list."""
    rules = (
        rule(namespaces=("web",), owner="web"),
        rule(service_accounts=("*",), owner="any of mail"),
        rule(owner="never"),
    )
    grant = await ClusterVoucher([cluster(*rules)]).vouch(asking(TOKEN))
    assert grant.owner == "any of mail"


def without_pod() -> str:
    """Return a token that is bound to no pod."""
    told = {"namespace": "mail", "serviceaccount": {"name": "postfix"}}
    return ISSUER_OF_ONE.token(START, **{"kubernetes.io": told})


def of(pod: str) -> str:
    """Return the token of another pod."""
    told = {**ISSUER_OF_ONE.claims(START)["kubernetes.io"], "pod": {"name": pod}}
    return ISSUER_OF_ONE.token(START, **{"kubernetes.io": told})


REFUSED: dict[str, tuple[str | None, ClusterRule]] = {
    "no credential": (None, rule()),
    "no token": ("x", rule()),
    "namespace in no rule": (TOKEN, rule(namespaces=("web",))),
    "account in no rule": (TOKEN, rule(service_accounts=("dovecot",))),
    "namespace as a prefix": (TOKEN, rule(namespaces=("mail-2", "mai"))),
    "a pattern is no star": (TOKEN, rule(namespaces=("ma*",))),
    "bound to no pod": (without_pod(), rule()),
    "name of a pod with a dot": (of("postfix-0.kube-system"), rule()),
    "name that is no name": (of("a" * 64), rule()),
    "other audience": (ISSUER_OF_ONE.token(START, aud=["vault"]), rule()),
    "other issuer": (ISSUER_OF_ONE.token(START, iss="https://evil.example"), rule()),
}


@pytest.mark.parametrize(("token", "given"), REFUSED.values(), ids=REFUSED)
async def test_refusals_are_all_alike(token: str | None, given: ClusterRule) -> None:
    """No answer tells which clusters, rules or accounts there are."""
    with pytest.raises(Problem) as caught:
        await ClusterVoucher([cluster(given)]).vouch(asking(token))
    assert caught.value == credential_refused()


async def test_pod_of_a_name_with_a_dot_is_a_node_where_no_rule_speaks_of_pods() -> None:
    """Only what becomes a part of a name has to be one label."""
    given = rule(node="{service_account}.{cluster}")
    grant = await ClusterVoucher([cluster(given)]).vouch(asking(of("postfix-0.x")))
    assert grant.node == "postfix.prod"


async def test_names_of_services_are_asked_for_when_a_pod_comes() -> None:
    """The pod's own word for it is worth nothing; one that no Service selects is not let in."""
    pods = FakePods({"postfix-0": {"app": "postfix"}}, {"smtp": {"app": "postfix"}})
    voucher = ClusterVoucher([cluster(rule(names=("{service}.mail.svc",)), pods=pods)])
    assert (await voucher.vouch(asking(TOKEN))).names == ("smtp.mail.svc",)
    pods.selectors.clear()
    with pytest.raises(Problem):
        await voucher.vouch(asking(TOKEN))
    pods.is_away = True
    with pytest.raises(Unreachable):
        await voucher.vouch(asking(TOKEN))


async def test_clusters_that_call_themselves_alike_are_told_apart_by_their_keys() -> None:
    """The default issuer is the same everywhere."""
    other = ClusterIssuer(private_key("ES256", "two"))
    voucher = ClusterVoucher([cluster(called="prod"), cluster(tokens=KeysOf(other), called="test")])
    assert (await voucher.vouch(asking(TOKEN))).node == "postfix-0.mail.prod"
    assert (await voucher.vouch(asking(other.token(START)))).node == "postfix-0.mail.test"


async def test_token_is_shown_to_clusters_of_its_issuer_alone() -> None:
    """A token is a secret of its cluster."""
    stranger = KeysOf(ClusterIssuer(private_key("ES256", "two"), issuer="https://two.example"))
    strangers = Cluster(name="two", issuer="https://two.example", tokens=stranger, rules=(rule(),))
    await ClusterVoucher([strangers, cluster()]).vouch(asking(TOKEN))
    assert stranger.asked == []


async def test_cluster_that_is_away_is_no_refusal() -> None:
    """The node tries again later; one that another cluster knows is let in meanwhile."""
    away = cluster(tokens=Away(), called="away")
    with pytest.raises(Unreachable):
        await ClusterVoucher([away]).vouch(asking(TOKEN))
    grant = await ClusterVoucher([away, cluster()]).vouch(asking(TOKEN))
    assert grant.node == "postfix-0.mail.prod"


# ------------------------------------------------------------------------- client certificates

ROOT = Authority.root("Machines")
ISSUING = ROOT.intermediate("Machines 1")
STRANGER = Authority.root("Strangers")
CLIENT = [(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)]
SERVER = [(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)]
HOST = "web-01.hosts.corp.example"


def machine(**changes: Any) -> CertificateRule:
    """Return a rule for hosts with names below hosts.corp.example, with changes."""
    made: dict[str, Any] = {
        "names": ("*.hosts.corp.example",),
        "subjects": (),
        "node": None,
        "community": "default",
        "may_have": ("www.corp.example",),
        "profiles": (),
        "owner": "Web",
        "contact": "",
    }
    return CertificateRule(**(made | changes))


def shown(certificate: x509.Certificate, *issuers: Authority, node: str = HOST) -> Asking:
    """Return a node that shows a client certificate."""
    chain = (certificate.public_bytes(Encoding.DER), *(one.der for one in issuers))
    return asking(None, node=node, client_chain=chain)


def voucher(*rules: CertificateRule) -> CertificateVoucher:
    """Return a voucher that trusts the machines' root."""
    return CertificateVoucher([ROOT.der], rules or (machine(),), FakeClock(NOW))


async def test_host_is_what_its_certificate_says() -> None:
    """The DNS name that a rule covers is the node's name."""
    leaf = ISSUING.leaf(HOST, extensions=CLIENT)
    grant = await voucher().vouch(shown(leaf, ISSUING))
    assert (grant.node, grant.names, grant.takes_over) == (HOST, ("www.corp.example",), False)
    assert grant.is_for_node
    assert (await voucher().vouch(shown(leaf, ISSUING, node=""))).node == HOST


async def test_certificate_without_usages_may_be_a_client_s() -> None:
    """An absent extension limits nothing (RFC 5280 §4.2.1.12)."""
    assert (await voucher().vouch(shown(ROOT.leaf(HOST)))).node == HOST


async def test_subject_gives_the_name_where_there_is_no_dns_name() -> None:
    """Old machine certificates have a subject alone."""
    given = machine(names=(), subjects=("CN=mail-01",), node="mail-01.corp.example")
    leaf = ROOT.leaf(subject=name("mail-01"), extensions=CLIENT)
    grant = await voucher(given).vouch(shown(leaf, node="mail-01.corp.example"))
    assert grant.node == "mail-01.corp.example"


BOTH = ("web-01.hosts.corp.example", "web-02.hosts.corp.example")

UNKNOWN: dict[str, Asking] = {
    "no certificate": asking(None, node=HOST),
    "another root": shown(STRANGER.leaf(HOST, extensions=CLIENT)),
    "another root with its chain": shown(STRANGER.leaf(HOST, extensions=CLIENT), STRANGER),
    "name of another": shown(ROOT.leaf("web-02.hosts.corp.example", extensions=CLIENT), node=HOST),
    "name outside the rules": shown(ROOT.leaf("a.example", extensions=CLIENT), node="a.example"),
    "two labels below": shown(
        ROOT.leaf("a.b.hosts.corp.example", extensions=CLIENT), node="a.b.hosts.corp.example"
    ),
    "wildcard": shown(ROOT.leaf("*.hosts.corp.example", extensions=CLIENT), node=HOST),
    "two names and no wish": shown(ROOT.leaf(*BOTH, extensions=CLIENT), node=""),
    "for servers": shown(ROOT.leaf(HOST, extensions=SERVER)),
    "a CA's": shown(ROOT.intermediate("ca", names=[HOST]).certificate),
    "ended": shown(ROOT.leaf(HOST, extensions=CLIENT, not_after=NOW - timedelta(seconds=1))),
    "not begun": shown(ROOT.leaf(HOST, extensions=CLIENT, not_before=NOW + timedelta(minutes=1))),
    "issued by a leaf": shown(
        Authority(ROOT.leaf(HOST, key=private_key("ES256", 9)), private_key("ES256", 9)).leaf(HOST)
    ),
    "no certificate at all": asking(None, node=HOST, client_chain=(b"\x30\x00",)),
}


@pytest.mark.parametrize("request_", UNKNOWN.values(), ids=UNKNOWN)
async def test_certificates_that_prove_no_node(request_: Asking) -> None:
    """Each is refused in the same words."""
    with pytest.raises(Problem) as caught:
        await voucher().vouch(request_)
    assert caught.value == credential_refused()


async def test_two_names_and_a_wish_are_enough() -> None:
    """A certificate may be of several nodes; the node says which it is."""
    leaf = ROOT.leaf(*BOTH, extensions=CLIENT)
    assert (await voucher().vouch(shown(leaf, node=BOTH[1]))).node == BOTH[1]


async def test_subject_has_to_be_one_of_the_rule_s() -> None:
    """A rule may hold both names and subjects; both count."""
    given = machine(subjects=("CN=web-01",))
    good = ROOT.leaf(HOST, subject=name("web-01"), extensions=CLIENT)
    assert (await voucher(given).vouch(shown(good))).node == HOST
    with pytest.raises(Problem):
        await voucher(given).vouch(shown(ROOT.leaf(HOST, subject=name("web"), extensions=CLIENT)))


def test_words_of_a_rejected_token_are_for_the_operator() -> None:
    """The refusal repeats nothing of it."""
    assert "issuer" not in credential_refused().detail
    assert isinstance(TokenRejected("x"), ValueError)


class Lists:
    """Revocation lists at hand, or not."""

    def __init__(self, *lists: x509.CertificateRevocationList, is_there: bool = True) -> None:
        self._lists = lists
        self._is_there = is_there

    async def current(self) -> Sequence[RevocationList]:
        """Return them."""
        if not self._is_there:
            raise RevocationUnknown("they cannot be read")
        return parse_revocation_lists(in_pem(*self._lists)) if self._lists else ()


MACHINE = ISSUING.leaf(HOST, extensions=CLIENT)


@pytest.mark.parametrize(
    ("lists", "level"),
    [
        pytest.param(Lists(listed(ISSUING, MACHINE), listed(ROOT)), "info", id="revoked"),
        pytest.param(
            Lists(listed(ISSUING), listed(ROOT, ISSUING.certificate)), "info", id="its-ca"
        ),
        pytest.param(
            Lists(listed(ISSUING, ends=timedelta(0)), listed(ROOT)), "error", id="list-that-ended"
        ),
        pytest.param(Lists(listed(ISSUING)), "error", id="list-that-is-missing"),
        pytest.param(Lists(is_there=False), "error", id="lists-that-cannot-be-read"),
    ],
)
async def test_revoked_or_unsure_lets_nobody_in(lists: Lists, level: str) -> None:
    """In the words of every refusal; the log tells which, and what is ours to mend."""
    given = CertificateVoucher([ROOT.der], [machine()], FakeClock(NOW), lists=lists)
    with capture_logs() as lines, pytest.raises(Problem) as caught:
        await given.vouch(shown(MACHINE, ISSUING))
    assert caught.value == credential_refused()
    assert [line["log_level"] for line in lines] == [level]
    good = Lists(listed(ISSUING), listed(ROOT))
    given = CertificateVoucher([ROOT.der], [machine()], FakeClock(NOW), lists=good)
    assert (await given.vouch(shown(MACHINE, ISSUING))).node == HOST
