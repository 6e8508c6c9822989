"""The ACME resources of the hostile CA: honest where its script is silent.

No HTTP in here: a verified request comes in, a :class:`Reply` goes out.
"""

from __future__ import annotations

import datetime
import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from tests.fakes.hostile_ca.envelope import Opened, Refused, check_binding, public_key, unb64
from tests.fakes.hostile_ca.issuing import Issuer
from tests.fakes.hostile_ca.ledger import Certified, Finalized, Ledger, Ordered, Revoked
from tests.fakes.hostile_ca.records import (
    Account,
    Authorization,
    Certificate,
    Challenge,
    Order,
    Records,
    new_id,
)
from tests.fakes.hostile_ca.script import AfterFinalize, ChallengeResult, NotAfter, Resource, Script


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer before it becomes HTTP."""

    status: int = 200
    document: Mapping[str, Any] | None = None
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


class Resources:
    """Everything a client can ask this CA for."""

    def __init__(self, base_url: str, script: Callable[[], Script], ledger: Ledger) -> None:
        self.base_url = base_url
        self._script = script
        self.ledger = ledger
        self.records = Records()
        self.issuer = Issuer()

    def perform(self, resource: Resource, id_: str, opened: Opened) -> Reply:
        """Do what a verified request asks for.

        Raises:
            Refused: An honest CA would refuse it too.
        """
        if resource is Resource.NEW_ACCOUNT:
            return self._new_account(opened)
        if resource is Resource.REVOKE:
            return self._revoke(opened)
        account = self._account_of(opened)
        match resource:
            case Resource.NEW_ORDER:
                return self._new_order(account, opened.payload)
            case Resource.ACCOUNT:
                return self._account(account, id_, opened.payload)
            case Resource.ORDERS:
                return self._orders(account, id_)
            case Resource.ORDER:
                return self._show_order(self._order(account, id_), 200)
            case Resource.FINALIZE:
                return self._finalize(self._order(account, id_), opened.payload)
            case Resource.AUTHORIZATION:
                return self._authorization(account, id_, opened.payload)
            case Resource.CHALLENGE:
                return self._challenge(account, id_, opened.payload)
            case _:
                return self._certificate(account, id_)

    def directory(self) -> Reply:
        """Answer the directory, lies included."""
        script = self._script()
        members = (Resource.NEW_NONCE, Resource.NEW_ACCOUNT, Resource.NEW_ORDER, Resource.REVOKE)
        document: dict[str, Any] = {str(each): f"{self.base_url}/{each}" for each in members}
        if script.renewal_info is not None:
            document[Resource.RENEWAL_INFO] = f"{self.base_url}/{Resource.RENEWAL_INFO}"
        meta: dict[str, Any] = {"externalAccountRequired": bool(script.external_accounts)}
        if script.profiles:
            meta["profiles"] = {name: f"{end} s" for name, end in script.profiles.items()}
        return Reply(document=document | {"meta": meta} | script.directory_overrides)

    def renewal_info(self) -> Reply:
        """Say when any certificate is to be renewed, to whoever asks."""
        script = self._script()
        if script.renewal_info is None:
            return Reply(404, content_type="text/plain")
        named = script.renewal_retry_after
        headers = {} if named is None else {"Retry-After": named}
        return Reply(body=script.renewal_info.encode(), headers=headers)

    def link(self, resource: Resource, id_: str = "") -> str:
        """Return the URL of a resource as the CA claims it to be."""
        base = self._script().link_base or self.base_url
        return f"{base}/{resource}/{id_}" if id_ else f"{base}/{resource}"

    def jwk_of_account(self, kid: str) -> Mapping[str, Any] | None:
        """Return the key of the account whose URL *kid* is."""
        account = self.records.accounts.get(kid.rpartition("/")[2])
        known = account is not None and kid == self.link(Resource.ACCOUNT, account.id)
        return account.jwk if account is not None and known else None

    def _new_account(self, opened: Opened) -> Reply:
        if "jwk" not in opened.header:
            raise Refused(400, "malformed", "newAccount is signed with jwk")
        payload = opened.payload or {}
        account = self.records.account_of_key(opened.jwk)
        status = 200
        if account is None:
            if payload.get("onlyReturnExisting"):
                raise Refused(400, "accountDoesNotExist", "no account has this key")
            self._check_binding(payload, opened)
            account = Account(new_id(), opened.jwk)
            self.records.accounts[account.id] = account
            self.ledger.accounts.append(account.id)
            status = 201
        return self._show_account(account, status)

    def _check_binding(self, payload: Mapping[str, Any], opened: Opened) -> None:
        keys = self._script().external_accounts
        if not keys:
            return
        binding = payload.get("externalAccountBinding")
        if binding is None:
            raise Refused(403, "externalAccountRequired", "this CA knows its subscribers")
        check_binding(binding, keys, opened.jwk, f"{self.base_url}/{Resource.NEW_ACCOUNT}")

    def _account_of(self, opened: Opened) -> Account:
        if "kid" not in opened.header:
            raise Refused(400, "malformed", "this is signed with kid")
        account = self.records.accounts[str(opened.header["kid"]).rpartition("/")[2]]
        if account.status != "valid":
            raise Refused(403, "unauthorized", f"the account is {account.status}")
        return account

    def _account(self, account: Account, id_: str, payload: Mapping[str, Any] | None) -> Reply:
        if account.id != id_:
            raise Refused(403, "unauthorized", "another's account")
        if payload and payload.get("status") == "deactivated":
            account.status = "deactivated"
        return self._show_account(account, 200)

    def _show_account(self, account: Account, status: int) -> Reply:
        document = {"status": account.status, "orders": self.link(Resource.ORDERS, account.id)}
        headers = {"Location": self.link(Resource.ACCOUNT, account.id)}
        return Reply(status, document, headers=headers)

    def _orders(self, account: Account, id_: str) -> Reply:
        if account.id != id_:
            raise Refused(403, "unauthorized", "another's orders")
        orders = self.records.orders.values()
        urls = [self.link(Resource.ORDER, o.id) for o in orders if o.account_id == account.id]
        return Reply(document={"orders": urls})

    def _new_order(self, account: Account, payload: Mapping[str, Any] | None) -> Reply:
        if not payload or not payload.get("identifiers"):
            raise Refused(400, "malformed", "an order needs identifiers")
        names = tuple(sorted({str(each["value"]).lower() for each in payload["identifiers"]}))
        profile = payload.get("profile")
        script = self._script()
        if profile is not None and profile not in script.profiles:
            raise Refused(400, "invalidProfile", f"no profile {profile!r}")
        limit = script.certificates_per_names
        if limit is not None and self.ledger.issued_for(names) >= limit:
            raise Refused(429, "rateLimited", f"{limit} certificates were issued for these names")
        behaviour = script.behaviour_for_new_order()
        if payload.get("notAfter") and behaviour.not_after is NotAfter.REFUSE:
            raise Refused(400, "malformed", "notAfter is not supported")
        if behaviour.coalesce:
            old = self.records.coalescible(account.id, names, profile)
            if old is not None:
                return self._show_order(old, 201)
        wanted = payload.get("notAfter") if behaviour.not_after is NotAfter.HONOUR else None
        end = datetime.datetime.fromisoformat(wanted) if wanted else None
        order = Order(new_id(), account.id, names, behaviour, end, profile)
        order.authorizations = [self._new_authorization(order, name) for name in names]
        if behaviour.authorizations_valid:
            order.status = "ready"
        self.records.orders[order.id] = order
        asked = payload.get("notAfter")
        self.ledger.orders.append(Ordered(order.id, account.id, names, asked, profile))
        return self._show_order(order, 201)

    def _new_authorization(self, order: Order, name: str) -> Authorization:
        behaviour = order.behaviour
        kinds = [k for k in behaviour.challenge_types if k == "dns-01" or name[0] != "*"]
        challenges = [
            Challenge(new_id(), kind, behaviour.token or secrets.token_urlsafe(32))
            for kind in kinds
        ]
        if behaviour.challenge_without_token:
            challenges.insert(0, Challenge(new_id(), "dns-persist-01", None))
        status = "valid" if behaviour.authorizations_valid else "pending"
        return Authorization(new_id(), order.id, name, challenges, status)

    def _order(self, account: Account, id_: str) -> Order:
        order = self.records.orders.get(id_)
        if order is None:
            raise Refused(404, "malformed", "no such order")
        if order.account_id != account.id:
            raise Refused(403, "unauthorized", "another's order")
        return order

    def _show_order(self, order: Order, status: int) -> Reply:
        shown = order.status
        if order.disguised_for > 0:
            order.disguised_for -= 1
            shown = order.behaviour.after_finalize
        document: dict[str, Any] = {
            "status": shown,
            "expires": "2099-01-01T00:00:00Z",
            "identifiers": [{"type": "dns", "value": name} for name in order.names],
            "authorizations": [
                self.link(Resource.AUTHORIZATION, each.id) for each in order.authorizations
            ],
            "finalize": self.link(Resource.FINALIZE, order.id),
        }
        if order.not_after:
            document["notAfter"] = order.not_after.isoformat()
        if order.profile:
            document["profile"] = order.profile
        if shown == "valid" and order.certificate_id:
            document["certificate"] = self.link(Resource.CERTIFICATE, order.certificate_id)
        if shown == "invalid":
            problem = "urn:ietf:params:acme:error:rejectedIdentifier"
            document["error"] = {"type": problem, "detail": "told to refuse", "status": 403}
        headers = {"Location": self.link(Resource.ORDER, order.id)}
        if shown in ("processing", "ready") and order.behaviour.retry_after is not None:
            headers["Retry-After"] = order.behaviour.retry_after
        return Reply(status, document, headers=headers)

    def _authorization(
        self, account: Account, id_: str, payload: Mapping[str, Any] | None
    ) -> Reply:
        authorization = self.records.authorization(id_)
        if authorization is None:
            raise Refused(404, "malformed", "no such authorization")
        order = self._order(account, authorization.order_id)
        if payload and payload.get("status") == "deactivated":
            authorization.status = "deactivated"
            if order.status in ("pending", "ready"):
                order.status = "invalid"
        wildcard = authorization.name.startswith("*.")
        document: dict[str, Any] = {
            "status": authorization.status,
            "expires": "2099-01-01T00:00:00Z",
            "identifier": {"type": "dns", "value": authorization.name.removeprefix("*.")},
            "challenges": [self._show_challenge(each) for each in authorization.challenges],
        }
        return Reply(document=document | ({"wildcard": True} if wildcard else {}))

    def _challenge(self, account: Account, id_: str, payload: Mapping[str, Any] | None) -> Reply:
        found = self.records.challenge(id_)
        if found is None:
            raise Refused(404, "malformed", "no such challenge")
        authorization, challenge = found
        order = self._order(account, authorization.order_id)
        if payload is not None and challenge.status == "pending":
            result = order.behaviour.challenge_result
            challenge.status = result
            if result is not ChallengeResult.PROCESSING:
                authorization.status = result
            if result is ChallengeResult.INVALID:
                order.status = "invalid"
            elif all(each.status == "valid" for each in order.authorizations):
                order.status = "ready"
        up = self.link(Resource.AUTHORIZATION, authorization.id)
        headers = {"Link": f'<{up}>;rel="up"'}
        return Reply(document=self._show_challenge(challenge), headers=headers)

    def _show_challenge(self, challenge: Challenge) -> dict[str, Any]:
        url = self.link(Resource.CHALLENGE, challenge.id)
        document = {"type": challenge.kind, "url": url, "status": challenge.status}
        return document | ({"token": challenge.token} if challenge.token is not None else {})

    def _finalize(self, order: Order, payload: Mapping[str, Any] | None) -> Reply:
        csr_der = unb64((payload or {}).get("csr"))
        csr = self._parse_csr(csr_der, order)
        if order.status != "ready":
            raise Refused(403, "orderNotReady", f"the order is {order.status}")
        behaviour = order.behaviour
        csr_sha256 = hashlib.sha256(csr_der).hexdigest()
        self.ledger.finalizes.append(Finalized(order.id, csr_sha256))
        if behaviour.after_finalize is AfterFinalize.INVALID:
            order.status = "invalid"
            return self._show_order(order, 200)
        order.certificate_id = self._issue(order, csr, csr_sha256).id
        order.status = "valid"
        order.disguised_for = behaviour.polls_until_done
        if behaviour.deny_finalize:
            raise Refused(403, "orderNotReady", "the order is valid, or so")
        return self._show_order(order, 200)

    def _parse_csr(self, csr_der: bytes, order: Order) -> x509.CertificateSigningRequest:
        try:
            csr = x509.load_der_x509_csr(csr_der)
            names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except (ValueError, x509.ExtensionNotFound) as error:
            raise Refused(400, "badCSR", str(error)) from None
        asked = sorted(names.value.get_values_for_type(x509.DNSName))
        if not csr.is_signature_valid or tuple(asked) != order.names:
            raise Refused(400, "badCSR", f"a CSR signed by its key for {order.names} is wanted")
        return csr

    def _issue(
        self, order: Order, csr: x509.CertificateSigningRequest, csr_sha256: str
    ) -> Certificate:
        behaviour = order.behaviour
        if behaviour.same_certificate:
            for old in reversed(self.records.certificates.values()):
                if (old.account_id, old.names) == (order.account_id, order.names):
                    return old
        lifetime = behaviour.lifetime_seconds
        if order.profile is not None:
            lifetime = self._script().profiles[order.profile]
        signed = self.issuer.sign(csr, order.names, behaviour, order.not_after, lifetime)
        answer = self.issuer.answer(signed, behaviour.chain)
        issued = Certificate(new_id(), order.account_id, order.id, order.names, signed, answer)
        self.records.certificates[issued.id] = issued
        self.ledger.certificates.append(
            Certified(
                order_id=order.id,
                serial_hex=f"{signed.serial_number:x}",
                fingerprint=signed.fingerprint(hashes.SHA256()).hex(),
                csr_sha256=csr_sha256,
                names=order.names,
                not_after=signed.not_valid_after_utc.isoformat(),
            )
        )
        return issued

    def _certificate(self, account: Account, id_: str) -> Reply:
        id_, _, number = id_.partition(".")
        issued = self.records.certificates.get(id_)
        if issued is None:
            raise Refused(404, "malformed", "no such certificate")
        if issued.account_id != account.id:
            raise Refused(403, "unauthorized", "another's certificate")
        behaviour = self.records.orders[issued.order_id].behaviour
        urls = [
            f"{self.link(Resource.CERTIFICATE, issued.id)}.{place}"
            for place in range(1, len(behaviour.alternates) + 1)
        ]
        links = [f'<{url}>;rel="alternate"' for url in (*urls, *behaviour.alternate_urls)]
        answer = issued.answer
        if number:
            shape = behaviour.alternates[int(number) - 1]
            answer = self.issuer.answer(issued.certificate, shape)
        return Reply(
            body=answer,
            content_type="application/pem-certificate-chain",
            headers={"Link": ", ".join(links)} if links else {},
        )

    def _revoke(self, opened: Opened) -> Reply:
        payload = opened.payload or {}
        der = unb64(payload.get("certificate"))
        every = self.records.certificates.values()
        public = serialization.Encoding.DER
        issued = next((c for c in every if c.certificate.public_bytes(public) == der), None)
        if issued is None:
            raise Refused(404, "malformed", "not issued here")
        if "kid" in opened.header:
            allowed = self._account_of(opened).id == issued.account_id
        else:
            signer = public_key(opened.jwk, str(opened.header["alg"]))
            allowed = signer == issued.certificate.public_key()
        if not allowed:
            raise Refused(403, "unauthorized", "another's certificate")
        serial = issued.certificate.serial_number
        if serial in self.records.revoked_serials:
            raise Refused(400, "alreadyRevoked", "revoked before")
        self.records.revoked_serials.add(serial)
        self.ledger.revocations.append(Revoked(f"{serial:x}", int(payload.get("reason", 0))))
        return Reply()
