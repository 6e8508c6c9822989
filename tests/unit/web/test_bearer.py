"""Bearer tokens: only those of a configured issuer, for us, in time, by its own key and alg."""

import base64
import hashlib
import hmac
import json
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.web.bearer import LEEWAY, TokenRejected, TokenTerms, TokenVerifier
from broker.web.issuer_keys import IssuerKeys
from tests.fakes.clock import START, FakeClock
from tests.fakes.cluster_issuer import encoded
from tests.fakes.token_issuer import AUDIENCE, ISSUER, FakeDocuments, TokenIssuer

KEYS = f"{ISSUER}/keys"
CERTIFICATE = b"a certificate in DER"


@pytest.fixture(scope="module")
def issuer() -> TokenIssuer:
    """The provider."""
    return TokenIssuer(ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture(scope="module")
def rsa_issuer() -> TokenIssuer:
    """A provider with an RSA key, whose public half an attacker has as well."""
    return TokenIssuer(rsa.generate_private_key(65537, 2048))


def terms(**changes: Any) -> TokenTerms:
    """Return what a token has to say."""
    made: dict[str, Any] = {
        "name": "corp",
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "algorithms": ("ES256", "RS256"),
        "types": ("at+jwt",),
        "longest": timedelta(hours=12),
        "groups_claim": "groups",
    }
    return TokenTerms(**{**made, **changes})


def verifier(issuer: TokenIssuer, **changes: Any) -> TokenVerifier:
    """Return a verifier that believes *issuer*."""
    keys = IssuerKeys(ISSUER, FakeDocuments({KEYS: issuer.key_set()}), FakeClock(), keys_url=KEYS)
    return TokenVerifier([(terms(**changes), keys)], FakeClock())


async def test_good_token_is_whose_it_says(issuer: TokenIssuer) -> None:
    """With the groups that it lists."""
    token = issuer.token(START, groups=["pki", "staff"])
    verified = await verifier(issuer).verify(token, None)
    assert (verified.issuer_name, verified.subject) == ("corp", "00u-jane")
    assert verified.groups == {"pki", "staff"}
    assert verified.token_id == "t-1"


async def test_rsa_token_is_believed_where_the_issuer_may_sign_so(rsa_issuer: TokenIssuer) -> None:
    """And not where it may not."""
    token = rsa_issuer.token(START)
    assert (await verifier(rsa_issuer).verify(token, None)).subject == "00u-jane"
    with pytest.raises(TokenRejected, match="alg 'RS256'"):
        await verifier(rsa_issuer, algorithms=("ES256",)).verify(token, None)


LATE = LEEWAY + timedelta(seconds=1)


async def test_token_until_the_end_of_time_proves_nothing(issuer: TokenIssuer) -> None:
    """Not even that we cannot count further than the last second of the year 9999."""
    token = issuer.token(START, exp=253402300799)
    with pytest.raises(TokenRejected, match="lasts longer than 12 h"):
        await verifier(issuer).verify(token, None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"iss": "https://evil.example"}, "not configured"),
        ({"iss": f"{ISSUER}/"}, "not configured"),
        ({"iss": None}, "not configured"),
        ({"iss": [ISSUER]}, "not configured"),
        ({"aud": "another"}, "another audience"),
        ({"aud": ["another", "third"]}, "another audience"),
        ({"aud": None}, "another audience"),
        ({"aud": {AUDIENCE: 1}}, "another audience"),
        ({"exp": int((START - LATE).timestamp()), "iat": int((START - LATE * 2).timestamp())},
         "has expired"),
        ({"exp": None}, "no exp"),
        ({"exp": "tomorrow"}, "no exp"),
        ({"exp": True}, "no exp"),
        ({"exp": 1e300}, "no time"),
        ({"iat": None}, "no iat"),
        ({"iat": int((START + LATE).timestamp())}, "not valid yet"),
        ({"nbf": int((START + LATE).timestamp())}, "not valid yet"),
        ({"exp": int((START + timedelta(days=365)).timestamp())}, "longer than 12 h"),
        ({"sub": None}, "no subject"),
        ({"sub": ""}, "no subject"),
        ({"sub": "x" * 256}, "no subject"),
        ({"sub": "jane\n"}, "cannot be printed"),
        ({"groups": "admins"}, "no list"),
        ({"groups": ["g"] * 1001}, "at most 1000"),
        ({"groups": [1]}, "no text"),
        ({"cnf": {"jkt": "abc"}}, "not known here"),
        ({"cnf": {"x5t#S256": "abc"}}, "was not shown"),
    ],
    ids=["issuer", "slash", "no-issuer", "issuer-list", "audience", "audiences", "no-audience",
         "audience-object", "expired", "no-end", "end-word", "end-truth", "end-far", "no-start",
         "early", "not-before", "too-long", "no-subject", "empty-subject", "long-subject",
         "line-end", "groups-text", "groups-many", "groups-numbers", "bound-key",
         "bound-certificate"],
)  # fmt: skip
async def test_token_with_other_claims_proves_nothing(
    issuer: TokenIssuer, changes: dict[str, Any], words: str
) -> None:
    """Each of them is signed as it should be."""
    with pytest.raises(TokenRejected, match=words):
        await verifier(issuer).verify(issuer.token(START, **changes), None)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"typ": None}, "typ"),
        ({"typ": "JWT"}, "typ 'JWT'"),
        ({"kid": None}, "which key"),
        ({"kid": "made-up"}, "does not publish"),
        ({"alg": "ES384"}, "alg 'ES384'"),
        ({"alg": ["ES256"]}, "alg"),
        ({"crit": ["b64"], "b64": False}, "member"),
        ({"jwk": {"kty": "EC"}}, "member 'jwk'"),
        ({"jku": "https://evil.example/keys"}, "member 'jku'"),
        ({"x5u": "https://evil.example/chain"}, "member 'x5u'"),
        ({"x5c": ["AAAA"]}, "member 'x5c'"),
        ({"enc": "A128GCM"}, "member 'enc'"),
    ],
    ids=["no-type", "id-token", "no-key", "unknown-key", "other-alg", "alg-list", "critical",
         "own-key", "key-url", "chain-url", "chain", "encrypted"],
)  # fmt: skip
async def test_token_with_another_header_proves_nothing(
    issuer: TokenIssuer, header: dict[str, Any], words: str
) -> None:
    """A header brings no key, and asks for nothing that has to be understood."""
    with pytest.raises(TokenRejected, match=words):
        await verifier(issuer).verify(issuer.token(START, header), None)


@pytest.mark.parametrize("alg", ["none", "None", "NONE", ""])
async def test_unsigned_token_proves_nothing(issuer: TokenIssuer, alg: str) -> None:
    """``alg: none`` is no algorithm here, however it is written."""
    head = encoded({"alg": alg, "typ": "at+jwt", "kid": "key-1"})
    claims = encoded(issuer.claims(START))
    for token in (f"{head}.{claims}.", f"{head}.{claims}.{encoded(b'x')}"):
        with pytest.raises(TokenRejected):
            await verifier(issuer).verify(token, None)


@pytest.mark.parametrize("form", ["pem", "der", "jwks"])
async def test_mac_with_the_public_key_proves_nothing(rsa_issuer: TokenIssuer, form: str) -> None:
    """HS256 over what everybody can read is the oldest trick there is."""
    public = rsa_issuer.key.public_key()
    secrets = {
        "pem": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "der": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "jwks": rsa_issuer.key_set(),
    }
    head = encoded({"alg": "HS256", "typ": "at+jwt", "kid": "key-1"})
    message = f"{head}.{encoded(rsa_issuer.claims(START))}"
    mac = hmac.new(secrets[form], message.encode(), hashlib.sha256).digest()
    with pytest.raises(TokenRejected, match="alg 'HS256'"):
        await verifier(rsa_issuer).verify(f"{message}.{encoded(mac)}", None)


async def test_algorithm_of_another_kind_of_key_proves_nothing(
    issuer: TokenIssuer, rsa_issuer: TokenIssuer
) -> None:
    """RS256 with the id of an EC key is refused, not tried."""
    head = encoded({"alg": "RS256", "typ": "at+jwt", "kid": "key-1"})
    token = rsa_issuer.signed(head, encoded(rsa_issuer.claims(START)))
    with pytest.raises(TokenRejected):
        await verifier(issuer).verify(token, None)


async def test_token_of_another_key_with_the_same_id_proves_nothing(issuer: TokenIssuer) -> None:
    """Somebody else's provider may well have a key-1."""
    other = TokenIssuer(ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(TokenRejected, match="signature"):
        await verifier(issuer).verify(other.token(START), None)


async def test_changed_claims_prove_nothing(issuer: TokenIssuer) -> None:
    """A signature is over what it is over."""
    head, _, signature = issuer.token(START).split(".")
    claims = encoded(issuer.claims(START, sub="00u-mallory"))
    with pytest.raises(TokenRejected, match="signature"):
        await verifier(issuer).verify(f"{head}.{claims}.{signature}", None)


@pytest.mark.parametrize(
    "text",
    ["", "a.b", "a.b.c.d", "a.b.c", "x" * 9000, "..", '{"payload":"","signatures":[]}',
     f"{encoded(b'[]')}.{encoded(b'{}')}.{encoded(b'x')}"],
    ids=["empty", "two", "four", "letters", "long", "dots", "json", "list"],
)  # fmt: skip
async def test_what_is_no_token_proves_nothing(issuer: TokenIssuer, text: str) -> None:
    """And breaks nothing."""
    with pytest.raises(TokenRejected):
        await verifier(issuer).verify(text, None)


async def test_claim_that_stands_twice_proves_nothing(issuer: TokenIssuer) -> None:
    """Two readers could read two subjects."""
    head = encoded({"alg": "ES256", "typ": "at+jwt", "kid": "key-1"})
    text = json.dumps(issuer.claims(START))[:-1] + ', "sub": "00u-mallory"}'
    with pytest.raises(TokenRejected):
        await verifier(issuer).verify(issuer.signed(head, encoded(text.encode())), None)


async def test_clocks_may_be_apart_a_little(issuer: TokenIssuer) -> None:
    """Half a minute, and no more: the twin is among the refused."""
    ended = START - LEEWAY + timedelta(seconds=1)
    token = issuer.token(START, exp=int(ended.timestamp()), iat=int(ended.timestamp()) - 60)
    assert await verifier(issuer).verify(token, None)


async def test_provider_that_marks_its_tokens_no_better_can_be_believed(
    issuer: TokenIssuer,
) -> None:
    """Where the configuration says so, and in any case of letters."""
    allowed = verifier(issuer, types=("at+jwt", "jwt"))
    for kind in ("JWT", "at+JWT", "application/at+jwt"):
        assert await allowed.verify(issuer.token(START, {"typ": kind}), None)


async def test_bound_token_comes_with_its_certificate(issuer: TokenIssuer) -> None:
    """RFC 8705 §3.1: with another it is stolen."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(CERTIFICATE).digest()).rstrip(b"=").decode()
    token = issuer.token(START, cnf={"x5t#S256": digest})
    assert await verifier(issuer).verify(token, CERTIFICATE)
    with pytest.raises(TokenRejected, match="another certificate"):
        await verifier(issuer).verify(token, b"another")


async def test_key_is_for_its_own_algorithm(issuer: TokenIssuer) -> None:
    """A provider that says what a key is for is taken at its word."""
    documents = FakeDocuments({KEYS: issuer.key_set(alg="ES512")})
    keys = IssuerKeys(ISSUER, documents, FakeClock(), keys_url=KEYS)
    with pytest.raises(TokenRejected, match="another alg"):
        await TokenVerifier([(terms(), keys)], FakeClock()).verify(issuer.token(START), None)


async def test_token_without_a_type_is_believed_where_that_is_configured(
    issuer: TokenIssuer,
) -> None:
    """Service accounts of a cluster have such ones; nobody else's is taken for one."""
    untyped, typed = issuer.token(START, header={"typ": None}), issuer.token(START)
    assert (await verifier(issuer, types=("none",)).verify(untyped, None)).subject == "00u-jane"
    for terms_, token in ((("at+jwt",), untyped), (("none",), typed), (("jwt",), untyped)):
        with pytest.raises(TokenRejected, match="typ"):
            await verifier(issuer, types=terms_).verify(token, None)
    called_so = issuer.token(START, header={"typ": "none"})
    with pytest.raises(TokenRejected, match="typ"):
        await verifier(issuer, types=("none",)).verify(called_so, None)
