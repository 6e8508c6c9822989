"""A device that is reached by SSH makes its own key, and takes what was issued for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from agents.config import KeyKind
from agents.drivers import DriverFault, install, look, make_csr
from tests.contract.agents.devices import names_in, program, section_of, sign, write
from tests.peers import authority
from tests.peers.sshd import Sshd

pytestmark = pytest.mark.peers

NAMES = ("switch-1.example", "www.switch-1.example")

DEVICE = """\
#!/bin/sh
# The command line of a device: it makes its own key, which never leaves {folder}.
set -eu
cd {folder}
set -f
set -- $SSH_ORIGINAL_COMMAND
echo "$SSH_ORIGINAL_COMMAND" >> told
[ "$1" = certificate ] || {{ echo "% unknown command" >&2; exit 1; }}
action=$2
shift 2
case "$action" in
request|again)
    kind=$1; shift
    names=; for name in "$@"; do names="$names,DNS:$name"; done
    case "$kind" in
    ec-p256) algorithm="-algorithm EC -pkeyopt ec_paramgen_curve:P-256" ;;
    rsa-2048) algorithm="-algorithm RSA -pkeyopt rsa_keygen_bits:2048" ;;
    *) echo "% unknown kind $kind" >&2; exit 1 ;;
    esac
    [ "$action" = again ] || openssl genpkey $algorithm -out next.key 2>/dev/null
    echo "Building request for $1 ..."
    openssl req -new -key next.key -subj "/CN=$1" -addext "subjectAltName=${{names#,}}"
    ;;
install)
    cat > next.pem
    openssl x509 -in next.pem -noout -pubkey > a.pub
    openssl pkey -in next.key -pubout > b.pub
    cmp -s a.pub b.pub || {{ echo "% certificate does not match key" >&2; exit 1; }}
    [ ! -e serving.pem ] || cp serving.pem before.pem
    mv next.pem serving.pem
    ;;
show) cat serving.pem ;;
back) mv before.pem serving.pem ;;
*) echo "% unknown action" >&2; exit 1 ;;
esac
"""

COMMANDS = {
    "csr": "certificate request {key_kind} {names}",
    "renew": "certificate again {key_kind} {names}",
    "install": "certificate install",
    "verify": "certificate show",
    "undo": "certificate back",
}


class Device:
    """A device behind sshd, and the driver's file of settings."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "device"
        self.folder.mkdir()
        cli = write(tmp_path / "cli", DEVICE.format(folder=self.folder))
        self.sshd = Sshd(tmp_path / "sshd", cli)
        self.settings = tmp_path / "device.toml"
        self.command = program("ssh", self.settings)

    def told(self) -> list[str]:
        """Return what the device was told."""
        told = self.folder / "told"
        return told.read_text().splitlines() if told.exists() else []


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    """A device that can be reached."""
    made = Device(tmp_path)
    with made.sshd:
        made.settings.write_text(made.sshd.settings(**COMMANDS))
        yield made


def test_certificate_comes_to_the_device_and_its_key_stays(device: Device) -> None:
    """CSR, chain and look go through; what lies on the node holds no key of the device."""
    issuer, section = authority.make_root("Root"), section_of(device.command, *NAMES)
    made = make_csr(section)
    assert names_in(made.csr_der) == set(NAMES)
    chain, fingerprint = sign(made.csr_der, issuer)
    install(section, chain, fingerprint)
    look(section, fingerprint)
    again = make_csr(section, is_new_key=False)
    assert again.spki_sha256 == made.spki_sha256
    assert make_csr(section).spki_sha256 != made.spki_sha256
    assert (device.folder / "next.key").exists()


def test_device_that_goes_back_serves_the_old_one(device: Device) -> None:
    """What was installed can be undone where the device can."""
    issuer, section = authority.make_root("Root"), section_of(device.command, *NAMES)
    first, old = sign(make_csr(section).csr_der, issuer)
    install(section, first, old)
    second, new = sign(make_csr(section, is_new_key=False).csr_der, issuer)
    done = install(section, second, new)
    with pytest.raises(DriverFault, match=f"instead of {old[:16]}"):
        look(section, old)
    done.undo()
    look(section, old)


def test_kind_of_key_is_asked_for(device: Device) -> None:
    """The device makes the kind of key that policy wants, or says that it can't."""
    made = make_csr(section_of(device.command, *NAMES, kind=KeyKind.RSA_2048))
    public = x509.load_der_x509_csr(made.csr_der).public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    with pytest.raises(DriverFault, match="% unknown kind rsa-4096"):
        make_csr(section_of(device.command, *NAMES, kind=KeyKind.RSA_4096))


def test_certificate_for_another_key_is_refused_by_the_device(device: Device) -> None:
    """A device doesn't take what isn't for its key, and that is told."""
    issuer, section = authority.make_root("Root"), section_of(device.command, *NAMES)
    stale, fingerprint = sign(make_csr(section).csr_der, issuer)
    chain, wanted = sign(make_csr(section).csr_der, issuer)
    with pytest.raises(DriverFault, match="certificate does not match key"):
        install(section, stale, fingerprint)
    install(section, chain, wanted)


HARMFUL = ("$(touch x).example", "a.example;reboot", "a.example\nreboot", "a b", "-x", "a|b")


def test_name_that_a_command_line_could_obey_never_reaches_it(device: Device) -> None:
    """What isn't one harmless word is refused before anybody connects."""
    for name in HARMFUL:
        with pytest.raises(DriverFault, match="is no name that a device is given") as caught:
            make_csr(section_of(device.command, name))
        assert caught.value.is_final
    assert device.told() == []
    make_csr(section_of(device.command, "*.switch-1.example"))
    assert len(device.told()) == 1


def test_device_with_another_host_key_is_not_spoken_to(device: Device) -> None:
    """Nothing is trusted at first sight."""
    known = device.sshd.known_hosts.read_text()
    device.sshd.known_hosts.write_text("")
    with pytest.raises(DriverFault, match="csr on the device ended with status 255"):
        make_csr(section_of(device.command, *NAMES))
    assert device.told() == []
    device.sshd.known_hosts.write_text(known)
    make_csr(section_of(device.command, *NAMES))


def test_settings_that_are_not_known_are_refused(device: Device) -> None:
    """A misspelt key in the device's file is told, and final."""
    device.settings.write_text(device.settings.read_text() + 'pasword = "x"\n')
    with pytest.raises(DriverFault, match="'pasword' is not known here") as caught:
        make_csr(section_of(device.command, *NAMES))
    assert caught.value.is_final
