"""A driver for devices with a Redfish API: the management controllers of servers.

Run as ``python -m agents.drivers_redfish FILE``.  By the actions GenerateCSR and ReplaceCertificate
of the CertificateService (DSP0266, schema CertificateService v1) the controller makes its key and
keeps it.  Such a device begins with a certificate that it signed itself: FILE says which one is
believed, by fingerprint, until it has one that chains to the anchors there.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import ssl
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from agents.driver_program import DeviceFault, Question, Settings, answer_one, read_settings

__all__ = ["main"]

KNOWN: Final = (
    "host", "port", "user", "password", "anchors", "pins", "seconds",
    "collection", "location", "subject",
)  # fmt: skip
"""Keys of the file of settings.  ``collection`` and ``location`` are the paths of the collection of
certificates and of the one that is replaced; ``subject`` has what the schema demands of a CSR."""

SERVICE: Final = "/redfish/v1/CertificateService"
SESSIONS: Final = "/redfish/v1/SessionService/Sessions"

MAX_ANSWER_BYTES: Final = 256 * 1024
"""Largest answer that is read, in bytes; a resource of a controller has under 20 KiB."""

ALGORITHMS: Final[Mapping[str, Sequence[str]]] = {
    "ec": ("TPM_ALG_ECDSA", "TPM_ALG_ECDH"),
    "rsa": ("TPM_ALG_RSA",),
}
"""Words for kinds of key; controllers disagree on the one for elliptic curves."""

SUBJECT: Final = ("Organization", "OrganizationalUnit", "City", "State", "Country")
"""What the schema demands besides names; a public CA keeps none of it in the certificate."""


class _Controller:
    """One session with a controller."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._token: str | None = None
        self._connection = _connect(settings)

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Log in, and out again at the end."""
        account = {
            "UserName": self._settings.text("user"),
            "Password": self._settings.secret("password"),
        }
        try:
            headers, _ = self._send("POST", SESSIONS, account)
            self._token = headers.get("x-auth-token")
            if not self._token:
                raise DeviceFault("the controller opened no session")
            try:
                yield
            finally:
                with contextlib.suppress(DeviceFault):
                    self._send("DELETE", _path(headers.get("location", SESSIONS)), None)
        finally:
            self._connection.close()

    def get(self, path: str) -> Mapping[str, Any]:
        """Return a resource."""
        return self._send("GET", path, None)[1]

    def act(self, action: str, members: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run an action of the certificate service and return what it answers."""
        return self._send("POST", _path(self.action(action).get("target")), members)[1]

    def action(self, name: str) -> Mapping[str, Any]:
        """Return what the certificate service says of an action."""
        found = self.get(SERVICE).get("Actions", {}).get(f"#CertificateService.{name}")
        if not isinstance(found, dict):
            raise DeviceFault(f"the controller has no action {name}", is_final=True)
        return found

    def _send(
        self, method: str, path: str, members: Mapping[str, Any] | None
    ) -> tuple[dict[str, str], Mapping[str, Any]]:
        headers = {"Accept": "application/json", "OData-Version": "4.0"}
        if self._token is not None:
            headers["X-Auth-Token"] = self._token
        body = None
        if members is not None:
            body = json.dumps(members).encode()
            headers["Content-Type"] = "application/json"
        try:
            self._connection.request(method, path, body, headers)
            with self._connection.getresponse() as response:
                content = response.read(MAX_ANSWER_BYTES + 1)
                found = {key.lower(): value for key, value in response.getheaders()}
                status = response.status
        except (OSError, http.client.HTTPException) as error:
            raise DeviceFault(f"{method} {path}: {type(error).__name__}") from None
        if not 200 <= status < 300:
            is_final = status in {400, 403, 404, 405, 501}
            raise DeviceFault(f"{method} {path} was answered with {status}", is_final=is_final)
        return found, _document(content, path)


def _document(content: bytes, path: str) -> Mapping[str, Any]:
    if len(content) > MAX_ANSWER_BYTES:
        raise DeviceFault(f"{path}: the answer is past {MAX_ANSWER_BYTES} bytes")
    try:
        found = json.loads(content) if content.strip() else {}
    except (ValueError, RecursionError):
        raise DeviceFault(f"{path}: the answer is no JSON") from None
    return found if isinstance(found, dict) else {}


def _path(text: object) -> str:
    """Return *text* if it is a path of this controller; it may not lead anywhere else."""
    if not isinstance(text, str) or not text.isascii() or not text.isprintable() or " " in text:
        raise DeviceFault("the controller named no path")
    path = "/" + text.partition("://")[2].partition("/")[2] if "://" in text else text
    if not path.startswith("/redfish/v1/"):
        raise DeviceFault("the controller named a path outside of its service")
    return path


def _connect(settings: Settings) -> http.client.HTTPSConnection:
    """Connect to the controller; it is believed by anchors, or by a fingerprint.

    Raises:
        DeviceFault: It cannot be reached or is not the one; no password was sent.
    """
    pins = {one.replace(":", "").lower() for one in settings.texts("pins")}
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if "anchors" in settings.members:
            trusting.load_verify_locations(cafile=settings.text("anchors"))
        try:
            return _open(settings, trusting)
        except ssl.SSLCertVerificationError:
            if not pins:
                raise
        blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        blind.check_hostname = False
        blind.verify_mode = ssl.CERT_NONE
        connection = _open(settings, blind)
        served = hashlib.sha256(_served_by(connection)).hexdigest()
    except OSError as error:
        raise DeviceFault(f"the controller cannot be believed: {_reason(error)}") from None
    if not any(hmac.compare_digest(served, pin) for pin in pins):
        connection.close()
        raise DeviceFault(f"the controller shows certificate {served[:16]}, which is not expected")
    return connection


def _open(settings: Settings, context: ssl.SSLContext) -> http.client.HTTPSConnection:
    seconds = settings.number("seconds", 60)
    connection = http.client.HTTPSConnection(
        settings.text("host"), settings.number("port", 443), timeout=seconds, context=context
    )
    connection.connect()
    return connection


def _served_by(connection: http.client.HTTPSConnection) -> bytes:
    if not isinstance(connection.sock, ssl.SSLSocket):
        raise DeviceFault("the controller speaks no TLS")
    return connection.sock.getpeercert(binary_form=True) or b""


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (error.strerror or type(error).__name__).lower()


def _make_csr(controller: _Controller, settings: Settings, question: Question) -> dict[str, Any]:
    if not question.is_new_key:
        raise DeviceFault("a controller makes a new key with each CSR", is_final=True)
    subject = settings.members.get("subject", {})
    family, _, size = question.key_kind.partition("-")
    offered = controller.action("GenerateCSR").get("KeyPairAlgorithm@Redfish.AllowableValues")
    words = ALGORITHMS[family]
    members: dict[str, Any] = {
        "CommonName": question.names[0],
        "AlternativeNames": list(question.names),
        "CertificateCollection": {"@odata.id": settings.text("collection")},
        "KeyPairAlgorithm": next((one for one in words if one in (offered or words)), words[0]),
        **{key: str(subject.get(key, "")) for key in SUBJECT},
    }
    if family == "rsa":
        members["KeyBitLength"] = int(size)
    else:
        members["KeyCurveId"] = "TPM_ECC_NIST_" + size.upper()
    return {"csr_pem": str(controller.act("GenerateCSR", members).get("CSRString", ""))}


def _install(controller: _Controller, settings: Settings, question: Question) -> dict[str, Any]:
    kinds = controller.action("ReplaceCertificate").get("CertificateType@Redfish.AllowableValues")
    end = "-----END CERTIFICATE-----"
    leaf = question.chain_pem.partition(end)[0] + end + "\n"
    takes_chain = "PEMchain" in (kinds or ())
    members = {
        "CertificateString": question.chain_pem if takes_chain else leaf,
        "CertificateType": "PEMchain" if takes_chain else "PEM",
        "CertificateUri": {"@odata.id": settings.text("location")},
    }
    controller.act("ReplaceCertificate", members)
    return {}


def _verify(controller: _Controller, settings: Settings, _question: Question) -> dict[str, Any]:
    """Return what the resource holds; whether it is served is seen by its own TLS port."""
    text = str(controller.get(_path(settings.text("location"))).get("CertificateString", ""))
    head, _, rest = text.partition("-----BEGIN CERTIFICATE-----")
    body = "".join(rest.partition("-----END CERTIFICATE-----")[0].split())
    try:
        der = base64.b64decode(body, validate=True)
    except ValueError:
        der = b""
    if not der or head.strip():
        raise DeviceFault("the controller's certificate cannot be read")
    return {"fingerprint": hashlib.sha256(der).hexdigest()}


OPERATIONS: Final = {"csr": _make_csr, "install": _install, "verify": _verify}


def main(arguments: Sequence[str]) -> int:
    """Answer the question on standard input by the controller of the file in *arguments*."""

    def act(question: Question) -> Mapping[str, Any]:
        if len(arguments) != 1:
            raise DeviceFault("name one file of settings", is_final=True)
        operation = OPERATIONS.get(question.operation)
        if operation is None:
            raise DeviceFault(f"operation {question.operation[:20]!r} is not known", is_final=True)
        settings = read_settings(arguments[0], KNOWN)
        controller = _Controller(settings)
        with controller.session():
            return operation(controller, settings, question)

    return answer_one(act)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
