"""A small client made with certbot's ``acme`` library, as people write them.

It runs in the library's own environment, knows nothing of the tests' code, reads one
request as JSON from its standard input and prints one answer as JSON.
"""

# mypy: ignore-errors
# The library lives in another environment than the one that types are checked in.

import contextlib
import datetime
import json
import subprocess
import sys
import threading
from pathlib import Path

import josepy
from acme import challenges, client, crypto_util, errors, messages, standalone
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

DEADLINE = datetime.timedelta(seconds=60)
KEYS = {
    "ec-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ec-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa-2048": lambda: rsa.generate_private_key(65537, 2048),
}
PLAIN_PEM = (
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
)


def jwk_of(key):
    """Return a private key as the library wants it, with the algorithm that goes with it."""
    if isinstance(key, rsa.RSAPrivateKey):
        return josepy.JWKRSA(key=key), josepy.RS256
    return josepy.JWKEC(key=key), josepy.ES256


class Account:
    """One account, kept in a folder between runs."""

    def __init__(self, request):
        self.folder = Path(request["directory"])
        self.request = request
        self.key_file = self.folder / "account.pem"
        self.registration_file = self.folder / "registration"
        if not self.key_file.exists():
            self.key_file.write_bytes(KEYS["ec-p256"]().private_bytes(*PLAIN_PEM))
        key = serialization.load_pem_private_key(self.key_file.read_bytes(), None)
        self.key, algorithm = jwk_of(key)
        self.acme = connect(request, self.key, algorithm)
        shown = self._registered()
        # The account shows its binding (RFC 8555 §7.3.4), which the library cannot send again.
        self.registration = shown.update(body=shown.body.update(external_account_binding=None))
        self.acme.net.account = self.registration

    def _registered(self):
        if self.registration_file.exists():
            known = messages.RegistrationResource(
                uri=self.registration_file.read_text(), body=messages.Registration()
            )
            return self.acme.query_registration(known)
        more = {}
        if self.request.get("eab"):
            kid, mac_key = self.request["eab"]
            more["external_account_binding"] = messages.ExternalAccountBinding.from_data(
                self.key.public_key(), kid, mac_key, self.acme.directory
            )
        new = messages.NewRegistration.from_data(
            email="library@example.com", terms_of_service_agreed=True, **more
        )
        registration = self.acme.new_account(new)
        self.registration_file.write_text(registration.uri)
        return registration


def connect(request, key, algorithm):
    """Return a client that signs with *key*."""
    bundle = request["ca_bundle"]
    net = client.ClientNetwork(key, alg=algorithm, verify_ssl=bundle, user_agent="a small client")
    net.session.trust_env = False
    directory = client.ClientV2.get_directory(request["url"], net)
    return client.ClientV2(directory, net)


def obtain(request):
    """Order, answer every challenge, finalize, and write what came."""
    account = Account(request)
    folder = account.folder
    key_file = folder / "key.pem"
    if request.get("csr"):
        csr_pem = Path(request["csr"]).read_bytes()
    else:
        key_file.write_bytes(KEYS[request["key"]]().private_bytes(*PLAIN_PEM))
        names = {"domains": request["names"], "ipaddrs": addresses_of(request)}
        csr_pem = crypto_util.make_csr(key_file.read_bytes(), **names)
    order = account.acme.new_order(csr_pem, profile=request.get("profile"))
    with contextlib.ExitStack() as stack:
        for authorization in order.authorizations:
            if authorization.body.status != messages.STATUS_VALID:
                answer(request, account, authorization.body, stack)
        deadline = datetime.datetime.now() + DEADLINE  # noqa: TID251, DTZ005  as the library has it
        order = account.acme.poll_authorizations(order, deadline)
        wanted = request.get("chain_of")
        order = account.acme.finalize_order(order, deadline, fetch_alternative_chains=bool(wanted))
    chain = order.fullchain_pem
    for other in order.alternative_fullchains_pem if wanted else ():
        last = x509.load_pem_x509_certificates(other.encode())[-1].issuer
        if last.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == wanted:
            chain = other
    write(folder, chain)
    return {}


def addresses_of(request):
    """Return the identifiers that are addresses."""
    import ipaddress

    return [ipaddress.ip_address(one) for one in request["addresses"]] or None


def answer(request, account, authorization, stack):
    """Answer the challenge that was asked for, until *stack* is closed."""
    kinds = {"http-01": challenges.HTTP01, "dns-01": challenges.DNS01}
    kind = kinds[request["challenge"]]
    body = next(one for one in authorization.challenges if isinstance(one.chall, kind))
    response, validation = body.response_and_validation(account.key)
    if kind is challenges.HTTP01:
        serve(request, stack, body, response, validation)
    else:
        name = body.chall.validation_domain_name(authorization.identifier.value)
        record(request, name, "add", validation)
        stack.callback(record, request, name, "delete", validation)
    account.acme.answer_challenge(body, response)


RESOURCES = set()


def serve(request, stack, body, response, validation):
    """Serve one more answer by http-01, starting the server for the first."""
    handler = standalone.HTTP01RequestHandler
    if not RESOURCES:
        where = (request["address"], request["http_port"])
        server = standalone.HTTP01Server(where, RESOURCES, ipv6=":" in where[0])
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        stack.callback(server.server_close)
        stack.callback(thread.join)
        stack.callback(server.shutdown)
    RESOURCES.add(handler.HTTP01Resource(body.chall, response, validation))


def record(request, name, action, value):
    """Set or take away one TXT record."""
    subprocess.run([request["records"], name, action, value], check=True)


def write(folder, fullchain):
    """Write leaf, chain and both."""
    end = "-----END CERTIFICATE-----\n"
    leaf, _, chain = fullchain.partition(end)
    (folder / "fullchain.pem").write_text(fullchain)
    (folder / "cert.pem").write_text(leaf + end)
    (folder / "chain.pem").write_text(chain.lstrip("\n"))


def renewal_time(request):
    """Return when the server wants the certificate renewed."""
    account = Account(request)
    pem = (account.folder / "cert.pem").read_bytes()
    due, _ = account.acme.renewal_time(pem)
    return {"due": due.isoformat() if due else None}


def revoke(request):
    """Revoke as the account, or with the certificate's key."""
    certificate = x509.load_pem_x509_certificate(Path(request["certificate"]).read_bytes())
    if request.get("certificate_key"):
        pem = Path(request["certificate_key"]).read_bytes()
        key, algorithm = jwk_of(serialization.load_pem_private_key(pem, None))
        connect(request, key, algorithm).revoke(certificate, 4)
    else:
        Account(request).acme.revoke(certificate, 4)
    return {"sha256": certificate.fingerprint(hashes.SHA256()).hex()}


def update_contact(request):
    """Replace the account's contact."""
    account = Account(request)
    body = account.registration.body.update(contact=(f"mailto:{request['contact']}",))
    shown = account.acme.update_registration(account.registration.update(body=body))
    return {"contact": list(shown.body.contact)}


def deactivate(request):
    """Give the account up."""
    account = Account(request)
    account.acme.deactivate_registration(account.registration)
    return {}


def main():
    """Do what is asked on the standard input."""
    request = json.load(sys.stdin)
    verbs = (obtain, renewal_time, revoke, update_contact, deactivate)
    verb = next(one for one in verbs if one.__name__ == request["verb"])
    try:
        print(json.dumps(verb(request)))
    except (errors.Error, messages.Error) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
