"""One line an event."""

import io
import json

from agents.log import MAX_FIELD_CHARS, Log, LogFormat
from tests.fakes.node_clock import NodeClock


def test_json_has_time_level_event_and_fields() -> None:
    """Fields that are None are left out."""
    to = io.StringIO()
    Log(NodeClock(), format_=LogFormat.JSON, to=to).info("enrolled", node="web", note=None)
    assert json.loads(to.getvalue()) == {
        "ts": "2026-03-01T12:00:00.000000Z",
        "level": "info",
        "event": "enrolled",
        "node": "web",
    }


def test_text_stays_one_line_whatever_a_value_holds() -> None:
    """A broker's reason with a line break in it cannot forge an event."""
    to = io.StringIO()
    Log(NodeClock(), format_=LogFormat.TEXT, to=to).error("refused", reason="a\n2026 info forged")
    assert to.getvalue().count("\n") == 1
    assert '"a\\n2026 info forged"' in to.getvalue()


def test_a_long_value_is_cut() -> None:
    """What a program said may be megabytes."""
    to = io.StringIO()
    Log(NodeClock(), format_=LogFormat.JSON, to=to).warning("reload", output="x" * 10_000)
    assert len(json.loads(to.getvalue())["output"]) == MAX_FIELD_CHARS + 1


def test_a_reader_that_is_gone_stops_nothing() -> None:
    """Certificates are not to suffer by a closed pipe."""
    to = io.StringIO()
    log = Log(NodeClock(), format_=LogFormat.AUTO, to=to)
    to.close()
    log.info("enrolled")
