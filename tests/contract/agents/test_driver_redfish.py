"""A device with a Redfish API makes its own key, and takes what was issued for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from agents.config import KeyKind, LookSection
from agents.drivers import DriverFault, install, look, make_csr
from agents.look import look as look_at
from tests.contract.agents.devices import NAMES, names_in, program, section_of, sign
from tests.fakes.redfish_controller import COLLECTION, LOCATION, Controller
from tests.peers import authority

pytestmark = pytest.mark.peers

EC, RSA = "TPM_ALG_ECDSA", "TPM_ALG_RSA"


class Bmc:
    """A controller and the driver's file of settings."""

    def __init__(
        self,
        tmp_path: Path,
        *,
        algorithms: tuple[str, ...] = (EC, RSA),
        kinds: tuple[str, ...] = ("PEM", "PEMchain"),
    ) -> None:
        self.controller = Controller(tmp_path / "bmc", algorithms=algorithms, kinds=kinds)
        self.issuer = authority.make_root("Root")
        self._anchors = tmp_path / "anchors.pem"
        self._anchors.write_bytes(self.issuer.certificate_pem)
        self._password = tmp_path / "password"
        self._password.write_text(self.controller.password + "\n")
        self._settings = tmp_path / "bmc.toml"
        self.command = program("redfish", self._settings)
        self.set(pins=[self.controller.fingerprint])

    def set(self, **changes: object) -> None:
        """Write the file of settings."""
        members: dict[str, object] = {
            "host": "127.0.0.1",
            "port": self.controller.port,
            "user": "penstock",
            "password": f"file:{self._password}",
            "anchors": str(self._anchors),
            "collection": COLLECTION,
            "location": LOCATION,
            **changes,
        }
        lines = [f"{key} = {json.dumps(value)}" for key, value in members.items()]
        subject = ["Organization", "OrganizationalUnit", "City", "State"]
        lines += ["[subject]", *(f'{key} = "Example"' for key in subject), 'Country = "DE"']
        self._settings.write_text("\n".join(lines) + "\n")


@pytest.fixture
def bmc(tmp_path: Path) -> Iterator[Bmc]:
    """A controller that has the certificate from its factory."""
    made = Bmc(tmp_path)
    with made.controller:
        yield made


def test_certificate_comes_to_the_controller_and_its_key_stays(bmc: Bmc) -> None:
    """CSR, chain and look go through, the controller serves the new one, and is logged out of."""
    section = section_of(bmc.command, "127.0.0.1", *NAMES)
    made = make_csr(section)
    assert names_in(made.csr_der) == {"127.0.0.1", *NAMES}
    chain, fingerprint = sign(made.csr_der, bmc.issuer)
    install(section, chain, fingerprint)
    # From here on it is believed by its anchors: what it was pinned to is gone.
    look(section, fingerprint)
    at = LookSection(host="127.0.0.1", port=bmc.controller.port, server_name=None)
    assert look_at(at, fingerprint).fingerprint == fingerprint
    assert bmc.controller.logged_in == 3
    assert bmc.controller.sessions == set()


@pytest.mark.parametrize(
    ("kind", "word"),
    [(KeyKind.RSA_2048, RSA), (KeyKind.EC_P384, EC), (KeyKind.EC_P256, "TPM_ALG_ECDH")],
)
def test_kind_of_key_is_asked_for_in_the_controllers_words(
    tmp_path: Path, kind: KeyKind, word: str
) -> None:
    """Controllers name algorithms differently, and say which words they know."""
    bmc = Bmc(tmp_path, algorithms=(word,))
    with bmc.controller:
        made = make_csr(section_of(bmc.command, kind=kind))
    public = x509.load_der_x509_csr(made.csr_der).public_key()
    assert isinstance(public, rsa.RSAPublicKey if word == RSA else ec.EllipticCurvePublicKey)
    assert isinstance(public, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
    assert public.key_size == int(kind.value[-4:] if word == RSA else kind.value[-3:])


def test_controller_that_takes_single_certificates_gets_the_leaf(tmp_path: Path) -> None:
    """Type PEM is a single certificate, so the chain is left out where there is no PEMchain."""
    bmc = Bmc(tmp_path, kinds=("PEM",))
    with bmc.controller:
        section = section_of(bmc.command)
        chain, fingerprint = sign(make_csr(section).csr_der, bmc.issuer)
        install(section, chain, fingerprint)
        look_at(
            LookSection(host="127.0.0.1", port=bmc.controller.port, server_name=None), fingerprint
        )


def test_certificate_for_another_key_is_refused_by_the_controller(bmc: Bmc) -> None:
    """What isn't for the key that waits is refused, and what is served stays."""
    section, before = section_of(bmc.command), bmc.controller.fingerprint
    stale, fingerprint = sign(make_csr(section).csr_der, bmc.issuer)
    chain, wanted = sign(make_csr(section).csr_der, bmc.issuer)
    with pytest.raises(DriverFault, match="was answered with 400") as caught:
        install(section, stale, fingerprint)
    assert caught.value.is_final
    assert bmc.controller.fingerprint == before
    with pytest.raises(DriverFault, match=f"the device serves {before[:16]}"):
        look(section, wanted)
    install(section, chain, wanted)


def test_controller_that_is_another_gets_no_password(bmc: Bmc) -> None:
    """One whose certificate is neither pinned nor anchored isn't logged in to."""
    section = section_of(bmc.command)
    bmc.set(pins=["0" * 64])
    with pytest.raises(DriverFault, match="which is not expected"):
        make_csr(section)
    bmc.set(pins=[])
    with pytest.raises(DriverFault, match="the controller cannot be believed"):
        make_csr(section)
    assert bmc.controller.logged_in == 0
    bmc.set(pins=[bmc.controller.fingerprint])
    make_csr(section)


def test_wrong_password_is_told_and_not_shown(bmc: Bmc, tmp_path: Path) -> None:
    """A password that is refused is in no error."""
    (tmp_path / "password").write_text("s3cret-and-wrong")
    with pytest.raises(DriverFault, match="Sessions was answered with 401") as caught:
        make_csr(section_of(bmc.command))
    assert "s3cret" not in str(caught.value) + caught.value.complaint


def test_key_that_is_to_be_kept_is_not_made_anew(bmc: Bmc) -> None:
    """GenerateCSR always makes a key, so keeping one is refused for good."""
    with pytest.raises(DriverFault, match="makes a new key with each CSR") as caught:
        make_csr(section_of(bmc.command), is_new_key=False)
    assert caught.value.is_final
    make_csr(section_of(bmc.command))


def test_controller_that_cannot_be_reached_is_told(bmc: Bmc) -> None:
    """A controller that is off is tried again later."""
    bmc.set(port=1)
    with pytest.raises(DriverFault, match="cannot be believed: connection refused") as caught:
        make_csr(section_of(bmc.command))
    assert not caught.value.is_final
