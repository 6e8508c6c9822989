"""The hands of ``renew``: keys, checks, files, reloads and looks, as the modules for each do them.

Each of them is imported when it is first needed: an agent that waits holds none of them.  Whatever
they raise becomes a HandFault, which says whether doing it again would help.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from agents.clock import Clock
from agents.config import AgentConfig, CertificateSection
from agents.log import Log
from agents.records import Record
from agents.steps import Checked, HandFault, Installation, Made

__all__ = ["NodeHands"]

NOT_LOOKED_AT = "not looked at"
"""What is told of a certificate for which the configuration names no place to look."""


class NodeHands:
    """Does it on this node."""

    def __init__(self, config: Callable[[], AgentConfig], clock: Clock, log: Log) -> None:
        self._config = config
        self._clock = clock
        self._log = log

    @property
    def _state(self) -> str:
        return self._config().node.state

    # -------------------------------------------------------------------------------- keys

    def make_csr(self, section: CertificateSection, *, is_new_key: bool) -> Made:
        """Return a CSR by a new key, or by the one that there is."""
        if section.driver is not None:
            return _Device(section).make_csr(is_new_key=is_new_key)
        from agents.keys import KeyFault, make_csr

        try:
            made = make_csr(
                section, names=section.names, is_new_key=is_new_key, state_dir=self._state
            )
        except KeyFault as fault:
            raise HandFault(str(fault), is_final=False) from None
        return Made(made.csr_der, made.spki_sha256, made.key_reference)

    def forget_key(self, section: CertificateSection, key: str) -> None:
        """Destroy a key that waited for a certificate which will not come."""
        from agents.keys import KeyFault, forget_key

        try:
            forget_key(section.name, key, self._state)
        except KeyFault as fault:
            self._log.warning("a key that waited is still there", reason=fault)

    # ------------------------------------------------------------------------------ checks

    def check(self, section: CertificateSection, body: dict[str, Any], record: Record) -> Checked:
        """Return the certificate of a message as one that may be installed."""
        from agents.verify import Expectation, Rejected, read_anchors, verify_certificate

        spki = str(body["spki_sha256"])
        key = self._find_key(section, spki, record)
        longest = int(body["longest_seconds"])
        begun = record.not_before
        try:
            verified = verify_certificate(
                str(body["chain_pem"]),
                Expectation(
                    names=section.names,
                    spki_sha256=spki,
                    now=self._clock.now(),
                    anchors_pem=read_anchors(section.expects.anchors),
                    longest=(
                        section.expects.longest,
                        timedelta(seconds=min(longest, MAX_SECONDS)) if longest > 0 else None,
                    ),
                    installed_not_before=None if begun is None else _time(begun),
                ),
            )
        except Rejected as rejected:
            raise HandFault(rejected.reason) from None
        return Checked(
            fingerprint=verified.fingerprint,
            not_before=int(verified.not_before.timestamp()),
            not_after=int(verified.not_after.timestamp()),
            spki_sha256=verified.spki_sha256,
            key=key,
            verified=verified,
        )

    def _find_key(self, section: CertificateSection, spki: str, record: Record) -> str:
        if section.driver is not None:
            if spki not in (record.asked_spki, record.spki_sha256):
                raise HandFault("the certificate is for a key that the device was not asked for")
            return ""
        from agents.keys import KeyFault, find_key

        try:
            return find_key(section.name, spki, self._state)
        except KeyFault as fault:
            raise HandFault(str(fault)) from None

    # ------------------------------------------------------------------------------- files

    def install(self, section: CertificateSection, checked: Checked, seconds: int) -> Installation:
        """Put it in place; previous keys are kept for at least so many seconds."""
        if section.driver is not None:
            return _Device(section).install(checked)
        from agents.install import InstallFault, install
        from agents.sealing import SealFault, seal_key

        try:
            seal_key(section, checked.verified, checked.key, state_dir=self._state)
            made = install(
                section,
                checked.verified,
                checked.key,
                allowed=self._config().node.allowed,
                state_dir=self._state,
                keep_previous=timedelta(seconds=min(seconds, MAX_SECONDS)),
                clock=self._clock,
            )
        except (InstallFault, SealFault) as fault:
            raise HandFault(str(fault)) from None
        return _Undoable(made, partial(self._settled, section))

    @property
    def has_token(self) -> bool:
        """Whether a key is to lie on a token."""
        return any(one.key.store != "file" for one in self._config().certificates)

    def tidy(self) -> list[str]:
        """Take away previous keys whose time is over, from files first and then from tokens; return
        what could not be done."""
        from agents.recovery import clear_previous

        config = self._config()
        found = clear_previous(
            config.certificates, allowed=config.node.allowed, now=self._clock.now()
        )
        found += self._destroy_left()
        for one in found:
            self._log.warning("a previous key is still there", reason=one)
        return found

    def _destroy_left(self) -> list[str]:
        from agents.leaving import destroy_left

        config = self._config()
        return destroy_left(
            config.certificates,
            allowed=config.node.allowed,
            state_dir=self._state,
            now=self._clock.now(),
        )

    def _settled(self, section: CertificateSection) -> None:
        if section.key.store != "file":
            for one in self._destroy_left():
                self._log.warning("a previous key is still there", reason=one)

    def unfinished(self, section: CertificateSection, fingerprint: str) -> Installation | None:
        """Return what was installed of it before the agent ended, neither undone nor settled."""
        if section.driver is not None:
            return None
        from agents.install import InstallFault, unfinished

        try:
            found = unfinished(
                section,
                allowed=self._config().node.allowed,
                state_dir=self._state,
                clock=self._clock,
            )
        except InstallFault as fault:
            raise HandFault(str(fault)) from None
        if found is None or found.journal.fingerprint != fingerprint:
            return None
        return _Undoable(found, partial(self._settled, section))

    # ----------------------------------------------------------------------------- servers

    def reload(self, sections: Sequence[CertificateSection]) -> None:
        """Reload what these share."""
        section = sections[0].reload
        if section.is_nothing and not section.check:
            return
        from pathlib import Path

        from agents.reload import ReloadFault, Renewed, reload

        renewed = [
            Renewed(one.name, one.names, Path(one.files.directory))
            for one in sections
            if one.files is not None
        ]
        try:
            reload(section, renewed)
        except ReloadFault as fault:
            if fault.output:
                self._log.error("what the reload said", output=fault.output)
            raise HandFault(str(fault)) from None

    def look(self, section: CertificateSection, fingerprint: str) -> str | None:
        """See the certificate served; return a note for people."""
        if section.look is None:
            if section.driver is not None:
                return _Device(section).look(fingerprint)
            return NOT_LOOKED_AT
        from agents.look import NotSeen, look

        try:
            look(section.look, fingerprint, key_kind=str(section.key.kind))
        except NotSeen as fault:
            raise HandFault(str(fault)) from None
        return None


class _Undoable:
    """An installation whose faults are HandFaults."""

    def __init__(self, installation: Any, settled: Callable[[], None]) -> None:
        self._installation = installation
        self._settled = settled

    def undo(self) -> None:
        """Put back what was there before."""
        self._do("undo")

    def settle(self) -> None:
        """Give up what was there before."""
        self._do("settle")
        self._settled()

    def _do(self, what: str) -> None:
        from agents.install import InstallFault

        try:
            getattr(self._installation, what)()
        except InstallFault as fault:
            raise HandFault(str(fault)) from None


MAX_SECONDS = 100 * 365 * 86_400
"""Longest time that a message can name, in seconds: a hundred years."""


class _Device:
    """A device that its driver speaks to: the key never leaves it, nothing lies on the node."""

    def __init__(self, section: CertificateSection) -> None:
        from agents import drivers

        self._drivers = drivers
        self._section = section

    def make_csr(self, *, is_new_key: bool) -> Made:
        ask = partial(self._drivers.make_csr, self._section, is_new_key=is_new_key)
        made = self._do(ask)
        return Made(made.csr_der, made.spki_sha256, "")

    def install(self, checked: Checked) -> Installation:
        chain = str(checked.verified.chain_pem)
        return _OnDevice(self._do(self._drivers.install, self._section, chain, checked.fingerprint))

    def look(self, fingerprint: str) -> str | None:
        self._do(self._drivers.look, self._section, fingerprint)
        return None

    def _do(self, what: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return what(*arguments)
        except self._drivers.DriverFault as fault:
            raise HandFault(str(fault), is_final=fault.is_final) from None


class _OnDevice:
    """An installation on a device."""

    def __init__(self, installation: Any) -> None:
        self._installation = installation

    def undo(self) -> None:
        """Put back what was there before."""
        self._do("undo")

    def settle(self) -> None:
        """Give up what was there before."""
        self._do("settle")

    def _do(self, what: str) -> None:
        from agents.drivers import DriverFault

        try:
            getattr(self._installation, what)()
        except DriverFault as fault:
            raise HandFault(str(fault)) from None


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
