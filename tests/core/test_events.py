"""Moments of the log: from what somebody wrote, and back."""

import pytest

from abgate.core.events import parse_moment, to_timestamp


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-01-31", "2026-01-31T00:00:00.000Z"),
        ("2026-01-31T12:00:00", "2026-01-31T12:00:00.000Z"),
        ("2026-01-31T12:00:00.25Z", "2026-01-31T12:00:00.250Z"),
        ("2026-01-31T12:00:00+02:00", "2026-01-31T10:00:00.000Z"),
        # In UTC these are in the years 0 and 10000, which no calendar here has.
        ("0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00.000Z"),
        ("9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59.999Z"),
    ],
)
def test_a_written_moment_is_in_utc_unless_it_names_a_zone(written: str, meant: str) -> None:
    assert to_timestamp(parse_moment(written)) == meant


@pytest.mark.parametrize("written", ["", "yesterday", "2026-02-30", "1769860800"])
def test_what_is_no_moment(written: str) -> None:
    with pytest.raises(ValueError, match=r"isoformat|day is out of range"):
        parse_moment(written)
