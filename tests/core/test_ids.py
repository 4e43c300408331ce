"""Identifiers, names, descriptions, flows and timestamps: what the contract's patterns take and refuse."""

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abgate.core.ids import (
    BASE58,
    ENTROPY_BYTES,
    LENGTH,
    Description,
    ExperimentId,
    FeatureFlagId,
    Flow,
    Name,
    SegmentId,
    VariationId,
    make_id,
    timestamp,
)
from tests.core.builders import fits

ID_TYPES = {"exp": ExperimentId, "flg": FeatureFlagId, "var": VariationId, "seg": SegmentId}
prefixes = st.sampled_from(sorted(ID_TYPES))
entropies = st.binary(min_size=ENTROPY_BYTES, max_size=ENTROPY_BYTES)

# --- Identifiers ------------------------------------------------------------------------------------------------------


@given(prefixes, entropies)
def test_an_id_is_its_prefix_and_22_base58_characters(prefix: str, entropy: bytes) -> None:
    made = make_id(prefix, entropy)
    assert re.fullmatch(prefix + "_[A-HJ-NP-Za-km-z1-9]{22}", made)
    assert fits(made, ID_TYPES[prefix])


@given(entropies)
def test_an_id_keeps_as_much_entropy_as_its_characters_hold(entropy: bytes) -> None:
    digits = [BASE58.index(character) for character in make_id("exp", entropy).removeprefix("exp_")]
    assert sum(digit * 58**place for place, digit in enumerate(digits)) == int.from_bytes(entropy) % 58**LENGTH


def test_every_id_is_about_equally_likely() -> None:
    """The entropy has 2**120 times more values than there are ids, so that `mod` favours none by more than that."""
    assert 256**ENTROPY_BYTES // 58**LENGTH > 2**120


@pytest.mark.parametrize("prefix", ID_TYPES)
@pytest.mark.parametrize(
    "broken",
    [
        "", "{}", "{}_", "{}_0", "{}_O", "{}_I", "{}_l", "{}_a-b", "{}_ab\n", " {}_ab", "{}_ab ", "{}ab", "x{}_ab",
        "{}_é",
    ],
)  # fmt: skip
def test_what_is_no_id(prefix: str, broken: str) -> None:
    assert fits(f"{prefix}_9Km3nZ7vQwRx2yDjFs5gCp", ID_TYPES[prefix])
    assert not fits(broken.format(prefix), ID_TYPES[prefix])


@pytest.mark.parametrize("prefix", ID_TYPES)
def test_an_id_has_at_most_64_characters(prefix: str) -> None:
    assert [size for size in (5, 64, 65) if fits(f"{prefix}_{'a' * (size - 4)}", ID_TYPES[prefix])] == [5, 64]


@pytest.mark.parametrize("prefix", ID_TYPES)
def test_an_id_of_another_kind_is_refused(prefix: str) -> None:
    for other in ID_TYPES.keys() - {prefix}:
        assert not fits(f"{other}_9Km3nZ7vQwRx2yDjFs5gCp", ID_TYPES[prefix])


# --- Names, descriptions, flows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("type_", "longest"), [(Name, 255), (Description, 1024)])
def test_length(type_: object, longest: int) -> None:
    assert [length for length in (1, 2, 3, 4, longest - 1, longest, longest + 1) if fits("é" * length, type_)] == [
        3, 4, longest - 1, longest,
    ]  # fmt: skip


@pytest.mark.parametrize("type_", [Name, Description])
@pytest.mark.parametrize("text", ["passkey", "passkey prompt, Q2", "a\tb", "a b", "日本語", "🦊🦊🦊", "...", "<b>"])
def test_text_that_is_accepted(type_: object, text: str) -> None:
    assert fits(text, type_)


@pytest.mark.parametrize("type_", [Name, Description])
@pytest.mark.parametrize(
    "text",
    [
        "passkey\n", "\npasskey", "pass\nkey", "passkey\r\n", " passkey", "passkey ", "\tpasskey", "passkey\t",
        "passkey\u00a0", "\u3000passkey", "passkey\u2028", "pass\x00key", "\x00passkey", "passkey\x00", "   ", "\n\n\n",
    ],
)  # fmt: skip
def test_white_space_at_either_end_a_line_break_and_nul_are_refused(type_: object, text: str) -> None:
    assert not fits(text, type_)


@given(st.text(st.sampled_from("ab \t\r\n\x00\u2028é"), max_size=6))
def test_text_is_what_the_contract_says_in_words(text: str) -> None:
    allowed = len(text) >= 3 and "\x00" not in text and "\n" not in text and text == text.strip()
    assert fits(text, Name) == fits(text, Description) == allowed


@pytest.mark.parametrize(
    "flow",
    [
        "authentication", "mfa_enrollment", "mfa_challenge", "password_reset", "passkey_enrollment", "all", "login",
        "signup", "pre_authentication", "ab", "a1_", "a" * 64,
    ],
)  # fmt: skip
def test_a_flow(flow: str) -> None:
    assert fits(flow, Flow)


@pytest.mark.parametrize("flow", ["", "a", "a" * 65, "1a", "_a", "Login", "log-in", "log in", "login\n", "logín"])
def test_what_is_no_flow(flow: str) -> None:
    assert not fits(flow, Flow)


# --- Timestamps -------------------------------------------------------------------------------------------------------

offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=offsets)


def test_a_timestamp_is_utc_with_milliseconds_and_z() -> None:
    assert timestamp(datetime(2026, 11, 24, 9, 5, 7, 1999, tzinfo=UTC)) == "2026-11-24T09:05:07.001Z"
    paris = timezone(timedelta(hours=1))
    assert timestamp(datetime(2026, 1, 1, 0, 30, tzinfo=paris)) == "2025-12-31T23:30:00.000Z"


@given(moments)
def test_a_timestamp_is_its_moment_cut_to_milliseconds(moment: datetime) -> None:
    text = timestamp(moment)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    assert timedelta(0) <= moment - datetime.fromisoformat(text) < timedelta(milliseconds=1)


@given(moments, moments)
def test_text_order_is_time_order(one: datetime, other: datetime) -> None:
    earlier, later = sorted((one, other))
    assert timestamp(earlier) <= timestamp(later)
