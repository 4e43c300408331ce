import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abgate.core.assignment import Forced, InFlight, Subjects
from abgate.core.tokens import (
    make_assignment_token,
    make_preview_token,
    permitted,
    read_assignment_token,
    read_preview_token,
)
from tests.core.builders import experiment_id, segment_id, variation_id

KEY = b"k" * 32
NOW = 1_795_488_638.25
IN_FLIGHT = InFlight(experiment_id(), variation_id(2), None)
DEVICE = Subjects(device="device-1")


def token(in_flight: InFlight = IN_FLIGHT, subject: str = "device-1", *, now: float = NOW) -> str:
    return make_assignment_token(KEY, in_flight, subject, now=now)


@pytest.mark.parametrize("segment", [None, segment_id(1)])
@pytest.mark.parametrize("is_forced", [False, True])
@given(subject=st.text(min_size=1, max_size=50))
def test_a_token_says_what_it_was_made_of(segment: str | None, is_forced: bool, subject: str) -> None:
    in_flight = InFlight(experiment_id(), variation_id(2), segment, is_forced)
    made = token(in_flight, subject)
    for subjects in (Subjects(device=subject), Subjects(user=subject), Subjects("other", "another", subject)):
        assert read_assignment_token(KEY, made, subjects, now=NOW) == in_flight


def test_a_token_stands_in_a_url_as_it_is_and_hides_its_subject() -> None:
    made = token(subject="jane.doe@example.com")
    assert set(made) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
    assert "jane" not in made
    plain = hashlib.sha256(f"{experiment_id()}.jane.doe@example.com".encode()).digest()
    assert plain.hex()[:16] not in made


@pytest.mark.parametrize("length", [1, 32, 64, 65, 200])
def test_the_signature_is_half_of_hmac_sha256_over_the_fields_and_the_subject(length: int) -> None:
    key = b"k" * length
    text, _, signature = make_assignment_token(key, IN_FLIGHT, "device-é", now=NOW).rpartition(".")
    assert signature == hmac.digest(key, f"{text}.device-é".encode(), "sha256").hex()[:32]


def test_a_token_lives_for_an_hour() -> None:
    made = token()
    assert read_assignment_token(KEY, made, DEVICE, now=NOW + 3599) == IN_FLIGHT
    assert read_assignment_token(KEY, made, DEVICE, now=NOW + 3601) is None


def test_a_clock_set_back_makes_no_token_worthless() -> None:
    assert read_assignment_token(KEY, token(), DEVICE, now=NOW - 3600) == IN_FLIGHT


def test_another_subject_cannot_use_a_token() -> None:
    for subjects in (Subjects(device="device-2"), Subjects(user="device-2"), Subjects()):
        assert read_assignment_token(KEY, token(), subjects, now=NOW) is None


def test_another_key_does_not_verify_it() -> None:
    assert read_assignment_token(b"x" * 32, token(), DEVICE, now=NOW) is None


@given(position=st.integers(min_value=0), character=st.sampled_from("Aa0._-é\x00"))
def test_no_changed_token_is_taken(position: int, character: str) -> None:
    made = token()
    position %= len(made)
    changed = made[:position] + character + made[position + 1 :]
    assert changed == made or read_assignment_token(KEY, changed, DEVICE, now=NOW) is None


@given(st.text() | st.text(alphabet="a2.p", max_size=20))
def test_whatever_is_no_token_reads_as_none(text: str) -> None:
    assert read_assignment_token(KEY, text, DEVICE, now=NOW) is None
    assert read_preview_token(KEY, text, now=NOW) is None


def test_neither_kind_of_token_passes_for_the_other() -> None:
    preview = make_preview_token(KEY, experiment_id(), now=NOW)
    assert read_assignment_token(KEY, preview, DEVICE, now=NOW) is None
    assert read_preview_token(KEY, token(), now=NOW) is None


@pytest.mark.parametrize(
    ("variation", "segment"), [(None, None), (variation_id(1), None), (None, segment_id(1)), ("var_1", "seg_1")]
)
def test_a_preview_token_lets_force_until_it_expires(variation: str | None, segment: str | None) -> None:
    made = make_preview_token(KEY, experiment_id(), variation_id=variation, segment_id=segment, now=NOW, lifetime=60)
    assert read_preview_token(KEY, made, now=NOW + 58) == Forced(experiment_id(), variation, segment)
    assert read_preview_token(KEY, made, now=NOW + 61) is None


FORCED = Forced(experiment_id(), variation_id(3))
PROMISED = Forced(experiment_id(), variation_id(2))
PREVIEW = make_preview_token(KEY, experiment_id(), variation_id=variation_id(2), now=NOW)


@pytest.mark.parametrize(
    ("policy", "forced", "preview", "expected"),
    [
        ("open", None, None, (None, False)),
        ("open", FORCED, None, (FORCED, False)),
        ("open", None, PREVIEW, (PROMISED, False)),
        ("open", FORCED, PREVIEW, (PROMISED, False)),
        ("open", FORCED, "bad", (FORCED, True)),
        ("signed", None, None, (None, False)),
        ("signed", FORCED, None, (None, True)),
        ("signed", None, PREVIEW, (PROMISED, False)),
        ("signed", FORCED, "bad", (None, True)),
        ("signed", None, "bad", (None, True)),
        ("off", None, None, (None, False)),
        ("off", FORCED, None, (None, True)),
        ("off", None, PREVIEW, (None, True)),
    ],
)
def test_who_may_force_an_assignment(
    policy: str, forced: Forced | None, preview: str | None, expected: tuple[Forced | None, bool]
) -> None:
    assert permitted(policy, forced, preview, key=KEY, now=NOW) == expected
