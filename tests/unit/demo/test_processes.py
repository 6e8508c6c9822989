"""Programs are run to their end, or ended."""

import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from broker.demo.processes import DemoFailed, loopback_environment, run_program

LIMIT = timedelta(seconds=20)
"""More than an interpreter needs to start on a busy machine."""


def python(code: str) -> list[str]:
    """Return the command line of a small program."""
    return [sys.executable, "-I", "-S", "-c", code]


async def test_output_comes_back() -> None:
    """What it says on standard error is for failures."""
    code = "import sys; print('data'); print('talk', file=sys.stderr)"
    assert await run_program("it", python(code), limit=LIMIT) == "data\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys; print('data'); sys.exit('no account')", "it failed: no account"),
        ("import sys; print('no account'); sys.exit(1)", "it failed: no account"),
    ],
    ids=["stderr", "stdout"],
)
async def test_failure_is_told_in_its_own_words(code: str, said: str) -> None:
    """Wherever it says them."""
    with pytest.raises(DemoFailed) as caught:
        await run_program("it", python(code), limit=LIMIT)
    assert str(caught.value) == said


async def test_program_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    """Its name is said, for whoever can install it."""
    with pytest.raises(DemoFailed, match="certbot cannot be run: no such file"):
        await run_program("certbot", [str(tmp_path / "certbot")], limit=LIMIT)


async def test_program_is_told_the_environment_it_is_given() -> None:
    """And nothing of ours beside it."""
    code = "import os; print(sorted(os.environ))"
    out = await run_program("it", python(code), limit=LIMIT, environment={"ONLY": "this"})
    assert "ONLY" in out
    assert "PATH" not in out


async def test_program_that_takes_too_long_is_ended() -> None:
    """The limit is in the sentence."""
    code = "import signal; signal.pause()"
    with pytest.raises(DemoFailed, match=r"it was not done in 0\.001 s"):
        await run_program("it", python(code), limit=timedelta(milliseconds=1))


async def test_program_does_not_outlive_a_cancelled_call(tmp_path: Path) -> None:
    """Ctrl-C leaves nothing behind: the pipe that it held open has no other end any more."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code = "import signal, sys; f = open(sys.argv[1], 'w', 1); print('up', file=f); signal.pause()"
    running = asyncio.create_task(run_program("it", [*python(code), str(pipe)], limit=LIMIT))
    with await asyncio.to_thread(pipe.open) as its_end:
        assert await asyncio.to_thread(its_end.readline) == "up\n"
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert its_end.read() == ""


def test_proxies_are_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever works behind one sees the demonstration all the same; the rest is kept."""
    monkeypatch.setenv("https_proxy", "http://proxy.corp.example:3128")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.corp.example:3128")
    monkeypatch.setenv("LANG", "C.UTF-8")
    made = loopback_environment(REQUESTS_CA_BUNDLE="/root.pem")
    assert not {name for name in made if "proxy" in name.lower()}
    assert (made["LANG"], made["REQUESTS_CA_BUNDLE"]) == ("C.UTF-8", "/root.pem")
