"""SIGTERM and SIGINT."""

import os
import signal

import pytest

from broker.app.stopping import told_to_stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_daemon_is_told_to_stop(number: signal.Signals) -> None:
    """And has the signals' usual meaning back afterwards."""
    before = signal.getsignal(number)
    with told_to_stop() as stopping:
        assert not stopping.is_set()
        os.kill(os.getpid(), number)
        await stopping.wait()
    assert signal.getsignal(number) in {before, signal.SIG_DFL, signal.default_int_handler}
