"""A Debian of its own with systemd in it, and on top of it what the broker imports.

Two folders of the cache, stacked by whoever boots them: the tree that debootstrap makes, and a
layer with nothing but ``/opt/penstock``, an environment of that Debian's Python with the libraries
that ``requirements/prod.txt`` pins.  The second is made anew when a pin changes, the first is not.
``debian_building`` beside this file puts both there; the machine that runs the tests gives its
release and its mirror, and is changed by neither.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.peers.installation import CACHE, PeerMissing, short_hash

__all__ = ["BROKER_HOME", "PINS", "layers", "libraries_home", "release", "tree_home"]

PACKAGES: Final = ("systemd-sysv", "python3", "python3-venv", "openssl", "nginx")
"""What a host needs that runs a broker, an agent and a web server, beside a minimal Debian."""

LEFT_OFF: Final = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dev-hugepages.mount",
    "dpkg-db-backup.timer",
    "fstrim.timer",
    "systemd-logind.service",
    "getty.target",
    "sys-fs-fuse-connections.mount",
)
"""Units that are masked in the tree: they serve people, disks and updates, of which it has none."""

FILES: Final = {
    "etc/hostname": "web-01\n",
    "etc/hosts": "127.0.0.1 localhost acme.corp.example pki.corp.example www.corp.example\n",
    "etc/machine-id": "70656e73746f636b2d7465737473206d\n",
    "etc/resolv.conf": "nameserver 127.0.0.1\n",
    "etc/penstock-test-machine": "The root of a machine that tests boot; never a host's own.\n",
}
"""Files that are written into the tree.  By the last one ``machine_boot`` knows where it is."""

BROKER_HOME: Final = "/opt/penstock"
"""Where docs/operations/install.md puts the broker."""

PINS: Final = Path(__file__).resolve().parents[2] / "requirements" / "prod.txt"


@functools.cache
def release() -> str:
    """Return the code name of this machine's Debian, which is also the tree's."""
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "unknown")


def tree_home() -> Path:
    """Return the cache directory of the tree."""
    files = (part for item in FILES.items() for part in item)
    return CACHE / f"debian-{release()}-{short_hash(*PACKAGES, *LEFT_OFF, *files)}"


def libraries_home() -> Path:
    """Return the cache directory of the layer with the broker's libraries."""
    return CACHE / f"broker-libraries-{short_hash(tree_home().name, PINS.read_text('ascii'))}"


def layers() -> Sequence[Path]:
    """Return the folders to stack, the uppermost first.

    Raises:
        PeerMissing: Run ``tests/peers/install``; a test never skips for it.
    """
    found = [libraries_home() / "layer", tree_home() / "tree"]
    for one in found:
        if not one.is_dir():
            raise PeerMissing(f"{one} is not there; run tests/peers/install")
    return found
