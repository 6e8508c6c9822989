"""A management controller with as much of Redfish as replacing its certificate takes.

Written from the published schemas CertificateService v1, Certificate v1 and Session v1 (DSP8010)
and strict where they are: a property that is missing or unknown, a path that is wrong or a session
that isn't there is an error.  Its key is made here and is in no answer.
"""

from __future__ import annotations

import hashlib
import http.server
import ipaddress
import json
import secrets
import ssl
import threading
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.peers import authority

ROOT: Final = "/redfish/v1"
COLLECTION: Final = f"{ROOT}/Managers/1/NetworkProtocol/HTTPS/Certificates"
LOCATION: Final = f"{COLLECTION}/1"
ACTIONS: Final = f"{ROOT}/CertificateService/Actions"

NEEDED: Final = frozenset(
    {"CommonName", "Organization", "OrganizationalUnit", "City", "State", "Country"}
    | {"CertificateCollection"}
)
"""Parameters that the schema marks as required."""

ALLOWED: Final = NEEDED | {"AlternativeNames", "KeyPairAlgorithm", "KeyBitLength", "KeyCurveId"}
CURVES: Final = {"TPM_ECC_NIST_P256": ec.SECP256R1(), "TPM_ECC_NIST_P384": ec.SECP384R1()}

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Controller:
    """A controller on a loopback port; use it in a ``with`` block."""

    def __init__(
        self, folder: Path, *, algorithms: tuple[str, ...], kinds: tuple[str, ...]
    ) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.algorithms = algorithms
        self.kinds = kinds
        self.password = secrets.token_urlsafe(12)
        self.sessions: set[str] = set()
        self.logged_in = 0
        first = authority.make_server(authority.make_root("Factory"), ["localhost"])
        self._waiting: PrivateKey | None = None
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.certificate_pem = first.certificate_pem.decode()
        self._serve(first.key, self.certificate_pem)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.socket = self._context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Controller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def port(self) -> int:
        """Port on loopback."""
        return int(self._server.server_address[1])

    @property
    def fingerprint(self) -> str:
        """Fingerprint of what it serves."""
        der = ssl.PEM_cert_to_DER_cert(self.certificate_pem.split("-----END")[0] + END)
        return hashlib.sha256(der).hexdigest()

    def get(self, path: str) -> dict[str, Any]:
        """Return a resource."""
        if path == f"{ROOT}/CertificateService":
            return {
                "@odata.type": "#CertificateService.v1_1_0.CertificateService",
                "@odata.id": path,
                "Id": "CertificateService",
                "Name": "Certificate Service",
                "Actions": {
                    "#CertificateService.GenerateCSR": {
                        "target": f"{ACTIONS}/CertificateService.GenerateCSR",
                        "KeyPairAlgorithm@Redfish.AllowableValues": list(self.algorithms),
                    },
                    "#CertificateService.ReplaceCertificate": {
                        "target": f"{ACTIONS}/CertificateService.ReplaceCertificate",
                        "CertificateType@Redfish.AllowableValues": list(self.kinds),
                    },
                },
            }
        if path == LOCATION:
            return {
                "@odata.type": "#Certificate.v1_9_0.Certificate",
                "@odata.id": path,
                "Id": "1",
                "CertificateString": self.certificate_pem,
                "CertificateType": "PEM",
            }
        raise KeyError(path)

    def act(self, path: str, members: dict[str, Any]) -> dict[str, Any]:
        """Run an action; raises ValueError where it is asked for wrongly."""
        if path == f"{ACTIONS}/CertificateService.GenerateCSR":
            return self._make_csr(members)
        if path == f"{ACTIONS}/CertificateService.ReplaceCertificate":
            return self._replace(members)
        raise KeyError(path)

    def _make_csr(self, members: dict[str, Any]) -> dict[str, Any]:
        if not NEEDED <= set(members) <= ALLOWED or not all(members[one] for one in NEEDED):
            raise ValueError("parameters of GenerateCSR")
        if members["CertificateCollection"] != {"@odata.id": COLLECTION}:
            raise ValueError("CertificateCollection")
        if members["KeyPairAlgorithm"] not in self.algorithms:
            raise ValueError("KeyPairAlgorithm")
        if members["KeyPairAlgorithm"] == "TPM_ALG_RSA":
            self._waiting = rsa.generate_private_key(65537, members["KeyBitLength"])
        else:
            self._waiting = ec.generate_private_key(CURVES[members["KeyCurveId"]])
        names = [_name(one) for one in members["AlternativeNames"]]
        subject = [x509.NameAttribute(x509.NameOID.COMMON_NAME, members["CommonName"])]
        csr = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name(subject))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._waiting, hashes.SHA256())
        )
        text = csr.public_bytes(serialization.Encoding.PEM).decode()
        return {"CSRString": text, "CertificateCollection": {"@odata.id": COLLECTION}}

    def _replace(self, members: dict[str, Any]) -> dict[str, Any]:
        if set(members) != {"CertificateString", "CertificateType", "CertificateUri"}:
            raise ValueError("parameters of ReplaceCertificate")
        if members["CertificateUri"] != {"@odata.id": LOCATION}:
            raise ValueError("CertificateUri")
        chain = x509.load_pem_x509_certificates(members["CertificateString"].encode())
        if members["CertificateType"] not in self.kinds:
            raise ValueError("CertificateType")
        if len(chain) > 1 and members["CertificateType"] == "PEM":
            raise ValueError("PEM is a single certificate")
        if self._waiting is None or chain[0].public_key() != self._waiting.public_key():
            raise ValueError("the certificate is for another key")
        self._serve(self._waiting, members["CertificateString"])
        self.certificate_pem = members["CertificateString"]
        return {}

    def _serve(self, key: PrivateKey, chain_pem: str) -> None:
        path = self._folder / "serving.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        path.write_bytes(private + chain_pem.encode())
        self._context.load_cert_chain(path)

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        controller = self

        class Handler(_Handler):
            """Requests to this controller."""

            served = controller

        return Handler


END: Final = "-----END CERTIFICATE-----\n"


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection to a controller."""

    served: Controller
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with a resource."""
        self._answer(lambda _: self.served.get(self.path))

    def do_POST(self) -> None:
        """Open a session, or run an action."""
        if self.path == f"{ROOT}/SessionService/Sessions":
            self._log_in()
        else:
            self._answer(lambda members: self.served.act(self.path, members))

    def do_DELETE(self) -> None:
        """Close a session."""
        token = self.headers.get("X-Auth-Token", "")
        self._say(204 if token in self.served.sessions else 401, None)
        self.served.sessions.discard(token)

    def _log_in(self) -> None:
        account = self._members()
        if account != {"UserName": "penstock", "Password": self.served.password}:
            self._say(401, {"error": {"code": "Base.1.0.NoValidSession"}})
            return
        token = secrets.token_urlsafe(16)
        self.served.sessions.add(token)
        self.served.logged_in += 1
        location = f"{ROOT}/SessionService/Sessions/{self.served.logged_in}"
        self._say(201, {"@odata.id": location}, {"X-Auth-Token": token, "Location": location})

    def _answer(self, act: Any) -> None:
        members = self._members()
        if self.headers.get("X-Auth-Token") not in self.served.sessions:
            self._say(401, {"error": {"code": "Base.1.0.NoValidSession"}})
            return
        try:
            found = act(members)
        except KeyError:
            self._say(404, {"error": {"code": "Base.1.0.ResourceNotFound"}})
        except ValueError:
            self._say(400, {"error": {"code": "Base.1.0.ActionParameterUnknown"}})
        else:
            self._say(200 if found else 204, found or None)

    def _members(self) -> dict[str, Any]:
        length = int(self.headers.get("Content-Length", "0"))
        return dict(json.loads(self.rfile.read(length))) if length else {}

    def _say(
        self, status: int, document: dict[str, Any] | None, headers: dict[str, str] | None = None
    ) -> None:
        body = json.dumps(document).encode() if document is not None else b""
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the library's word
        """Say nothing."""
