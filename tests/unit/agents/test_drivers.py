"""A driver is asked in one way, and believed only as far as it can be checked."""

import dataclasses
import hashlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agents.config import CertificateSection, DriverSection, ExpectsSection
from agents.drivers import DriverFault, install, look, make_csr, spki_of_csr

FINGERPRINT = "ab" * 32


class Device:
    """A driver that notes what it is asked and answers what a test says."""

    def __init__(self, tmp_path: Path) -> None:
        self._asked, self._answer = tmp_path / "asked", tmp_path / "answer"
        self._program = tmp_path / "driver"

    def answers(self, answer: object, *, status: int = 0, more: str = "") -> CertificateSection:
        """Have it answer *answer* and return the configuration that names it."""
        text = answer if isinstance(answer, str) else json.dumps(answer)
        self._answer.write_text(text)
        script = f"#!/bin/sh\ncat > {self._asked}\n{more}\ncat {self._answer}\nexit {status}\n"
        self._program.write_text(script)
        self._program.chmod(0o755)
        return CertificateSection(
            name="device",
            names=("device.example",),
            files=None,
            expects=ExpectsSection(anchors=None),
            driver=DriverSection(command=(str(self._program),), timeout=timedelta(seconds=20)),
        )

    def asked(self) -> dict[str, Any]:
        """Return what it was asked last."""
        found: dict[str, Any] = json.loads(self._asked.read_text())
        return found


@pytest.fixture
def device(tmp_path: Path) -> Device:
    """A device with a driver."""
    return Device(tmp_path)


def csr() -> tuple[str, bytes]:
    """Return a CSR as PEM, and the public key in it."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    pem = made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    return pem, key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("label", ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"])
def test_csr_is_asked_for_and_taken_apart(device: Device, label: str) -> None:
    """The device is told names and kind of key; of its CSR the public key is known."""
    pem, spki = csr()
    section = device.answers({"csr_pem": pem.replace("CERTIFICATE REQUEST", label)})
    made = make_csr(section, is_new_key=False)
    assert made.spki_sha256 == hashlib.sha256(spki).hexdigest()
    assert spki_of_csr(made.csr_der) == spki
    assert device.asked() == {
        "version": 1,
        "operation": "csr",
        "certificate": "device",
        "names": ["device.example"],
        "key_kind": "ec-p256",
        "is_new_key": False,
    }


PEM = csr()[0]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"csr_pem": 1},
        {"csr_pem": ""},
        {"csr_pem": PEM + PEM},
        {"csr_pem": PEM.replace("-----BEGIN", "-----BEGIN PRIVATE KEY-----\n-----BEGIN")},
        {"csr_pem": PEM.replace("REQUEST", "")},
        {"csr_pem": PEM.replace("\nM", "\n!")},
        {"csr_pem": "\n".join(PEM.splitlines()[:2] + PEM.splitlines()[3:])},
        {"csr_pem": "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n"},
        "no json",
        "[]",
        "[" * 10_000,
        "",
    ],
)
def test_answer_that_is_no_csr_is_refused(device: Device, answer: object) -> None:
    """Something else than one CSR is a fault."""
    with pytest.raises(DriverFault):
        make_csr(device.answers(answer))
    make_csr(device.answers({"csr_pem": PEM}))


def test_chain_is_handed_over(device: Device) -> None:
    """The device gets the chain and the fingerprint of its leaf, and may be asked to go back."""
    done = install(device.answers({}), "chain", FINGERPRINT)
    assert device.asked()["operation"] == "install"
    assert (device.asked()["chain_pem"], device.asked()["fingerprint"]) == ("chain", FINGERPRINT)
    done.settle()
    assert device.asked()["operation"] == "install"
    done.undo()
    assert device.asked()["operation"] == "undo"


def test_what_is_served_has_to_be_what_was_installed(device: Device) -> None:
    """A device that shows another certificate was not seen."""
    spelt = ":".join(FINGERPRINT[at : at + 2].upper() for at in range(0, 64, 2))
    look(device.answers({"fingerprint": spelt}), FINGERPRINT)
    with pytest.raises(DriverFault, match="the device serves cdcdcdcdcdcdcdcd instead of abab"):
        look(device.answers({"fingerprint": "cd" * 32}), FINGERPRINT)
    with pytest.raises(DriverFault, match="the device serves something else"):
        look(device.answers({"fingerprint": "\x1b[2J"}), FINGERPRINT)
    with pytest.raises(DriverFault, match="has no fingerprint"):
        look(device.answers({}), FINGERPRINT)


def test_error_is_passed_on_and_cleaned(device: Device) -> None:
    """What a driver says is told in bounds; what it complains of stays on the node."""
    error = {"error": "no\x1b[2J " + "x" * 1000, "is_final": True}
    with pytest.raises(DriverFault, match=r"install: no \[2J x") as caught:
        install(device.answers(error, status=1, more="echo s3cret >&2"), "chain", FINGERPRINT)
    assert caught.value.is_final
    assert len(str(caught.value)) < 400
    assert "s3cret" not in str(caught.value)
    assert caught.value.complaint == "s3cret"


def test_driver_that_crashes_or_hangs_is_a_fault(device: Device) -> None:
    """A driver that ends without an answer, or not at all, has not done it."""
    with pytest.raises(DriverFault, match="ended with status 3 without an answer") as caught:
        install(device.answers("", status=3), "chain", FINGERPRINT)
    assert not caught.value.is_final
    with pytest.raises(DriverFault, match="ended with status 3"):
        install(device.answers({}, status=3), "chain", FINGERPRINT)
    section = device.answers({}, more="sleep 600")
    assert section.driver is not None
    hanging = DriverSection(command=section.driver.command, timeout=timedelta(seconds=0.2))
    with pytest.raises(DriverFault, match="took longer than"):
        install(dataclasses.replace(section, driver=hanging), "", FINGERPRINT)


def test_answer_past_the_limit_is_a_fault(device: Device) -> None:
    """A driver can't fill the agent's memory."""
    with pytest.raises(DriverFault, match="wrote more than 65536 bytes"):
        make_csr(device.answers({"csr_pem": "x" * 100_000}))


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x80\x00\x00", b"\x30\x84\xff\xff\xff\xff"])
def test_csr_that_is_cut_off_is_refused(der: bytes) -> None:
    """Lengths that lie are seen."""
    with pytest.raises(DriverFault):
        spki_of_csr(der)
