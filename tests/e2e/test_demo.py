"""The demonstration as `make demo` gives it: twelve steps, and nothing left of it afterwards."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509

from broker.demo.node_story import NODE_STEPS
from broker.demo.story import STEPS
from tests.peers import process

pytestmark = pytest.mark.e2e

REPOSITORY = Path(__file__).resolve().parents[2]
PENSTOCK = Path(sys.executable).parent / "penstock"
CERTBOT = REPOSITORY / ".venv-demo" / "bin" / "certbot"
"""Where `make demo` and `make test` put it; without it the demonstration fails, and so do these."""

DEMO_SECONDS = 120
"""Longest run that README promises."""


class Demonstration:
    """The command, with its files and its temporary files in a directory of the test's own."""

    def __init__(self, tmp: Path) -> None:
        self.tmp = tmp
        self.client = CERTBOT
        self.kept = tmp / "kept"
        # Short, since the operators' sockets have to fit into a socket address below it.
        self.temporary = tmp / "t"
        self.temporary.mkdir()
        self._running: subprocess.Popen[str] | None = None

    def command(self, *, is_kept: bool) -> list[str]:
        """Return the command line; `make demo` keeps nothing."""
        kept = ["--directory", str(self.kept)] if is_kept else []
        return [str(PENSTOCK), "demo", "--certbot", str(self.client), *kept]

    def environment(self) -> dict[str, str]:
        """Return an environment in which a proxy would lead nowhere."""
        nowhere = "http://127.0.0.1:9"
        proxies = {"HTTPS_PROXY": nowhere, "http_proxy": nowhere}
        return process.clean_environment(self.tmp, {"TMPDIR": str(self.temporary), **proxies})

    def run(self, *, is_kept: bool) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            self.command(is_kept=is_kept),
            cwd=self.tmp,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=DEMO_SECONDS,
            check=False,
        )

    def start(self) -> subprocess.Popen[str]:
        """Begin it, for something to happen meanwhile."""
        self._running = subprocess.Popen(
            self.command(is_kept=True),
            cwd=self.tmp,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Whoever runs the tests in the background may have had SIGINT ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        return self._running

    def stop(self) -> None:
        """End it and whatever it left, for a test that failed."""
        if self._running is not None and self._running.poll() is None:
            self._running.kill()
            self._running.communicate()
        for pid in self.left():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def left(self) -> list[int]:
        """Return the processes that still speak of this demonstration on their command line."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if (
                    entry.name.isdigit()
                    and str(self.tmp).encode() in (entry / "cmdline").read_bytes()
                ):
                    found.append(int(entry.name))
        return found


@pytest.fixture
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demonstration]:
    """One that has not begun."""
    made = Demonstration(tmp_path_factory.mktemp("demo"))
    yield made
    made.stop()


def test_twelve_steps_are_told(demonstration: Demonstration) -> None:
    """Each with what happened; what is left is a certificate, and nothing that runs or listens."""
    done = demonstration.run(is_kept=True)
    assert done.returncode == 0, done.stdout + done.stderr
    told = re.findall(r"^ +(\d+)  (.+)\n +(\S.*)$", done.stdout, re.MULTILINE)
    assert [(number, title) for number, title, _ in told] == [
        (str(number), title) for number, (title, _) in enumerate(STEPS, start=1)
    ]
    happened = {title: what for _, title, what in told}
    assert "byte for byte the same" in happened["the CSR travels upstream"]
    assert "lever: ask" in happened["policy answers"]
    assert "the very same certificate" in happened["it is handed over and used"]
    at_node = re.findall(r"^  -  (.+)\n +(\S.*)$", done.stdout, re.MULTILINE)
    assert [title for title, _ in at_node] == [title for title, _ in NODE_STEPS]
    assert "everything that was started has ended" in done.stdout
    chain = demonstration.kept / "certbot" / "config" / "live" / "demo" / "fullchain.pem"
    leaf = x509.load_pem_x509_certificate(chain.read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["www.demo.internal"]
    assert demonstration.left() == []
    ports = {int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", done.stdout)}
    assert ports
    assert [port for port in ports if process.is_listening(port)] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda one: one.name)
def test_demonstration_that_is_interrupted_leaves_nothing(
    demonstration: Demonstration, number: signal.Signals
) -> None:
    """Both brokers end with it, and the command says that it did not get to its end."""
    running = demonstration.start()
    log = demonstration.kept / "broker" / "penstock.log"
    process.wait_until(
        lambda: log.exists() and '"serving"' in log.read_text(), DEMO_SECONDS, "the broker"
    )
    assert demonstration.left() != []
    running.send_signal(number)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 1, out
    assert err.strip().startswith("penstock: error: ")
    assert "Traceback" not in err
    assert demonstration.left() == []


def test_broken_client_is_a_failure_in_one_sentence(demonstration: Demonstration) -> None:
    """The brokers end all the same, and nothing stays of the files that nobody asked to keep."""
    demonstration.client = demonstration.tmp / "client"
    demonstration.client.write_text("#!/bin/sh\necho 'I ask for nothing' >&2\nexit 3\n")
    demonstration.client.chmod(0o755)
    done = demonstration.run(is_kept=False)
    assert done.returncode == 1
    assert done.stderr == "penstock: error: certbot failed: I ask for nothing\n"
    assert demonstration.left() == []
    assert list(demonstration.temporary.iterdir()) == []
