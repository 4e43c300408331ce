"""What came out: the results beside the truth, what they mean, and whether everything was counted right."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

from msgspec import Struct
from rich.box import SIMPLE_HEAD
from rich.table import Table

from abgate.cli.demo.control import LEVELS, Running
from abgate.cli.demo.feed import Delivered
from abgate.cli.demo.traffic import Person

FALSE_ALARM = 1e-6
"""How often, at most, a check on shares fails although nothing is wrong."""


class Check(Struct, frozen=True):
    """Something that must hold, in words with its numbers."""

    holds: bool
    text: str


def checks(
    people: Sequence[Person], running: Running, delivered: Delivered, results: Mapping[str, Any]
) -> Iterator[Check]:
    """Yield everything that must hold."""
    n = len(people)
    early = [person for person in people if person.is_early]
    devices = {person.device for person in people}
    exposed = Counter(person.variation_id for person in people)
    succeeded = Counter(person.variation_id for person in people if person.is_logged_in)
    assigned = sum(exposed[id] for id in running.names)
    yield Check(
        len(devices) == assigned == n, f"{assigned:,} of {n:,} logins took part, on {len(devices):,} distinct devices"
    )
    right = sum(person.variation_id == _recomputed(person, running) for person in people)
    yield Check(right == n, f"{right:,} of {n:,} assignments are those of the published SHA-256 formula")
    control = running.control_id
    yield _share_check(exposed[control], n, 0.5, f"devices in the {running.names[control]}")
    enrolled = [person for person in early if person.early_variation_id]
    yield _share_check(len(enrolled), len(early), LEVELS[0] / 100, f"devices that took part at {LEVELS[0]}%")
    stayed = sum(person.variation_id == person.early_variation_id for person in enrolled)
    yield Check(
        stayed == len(enrolled),
        f"{stayed:,} of the {len(enrolled):,} that took part at {LEVELS[0]}% kept their variation up to {LEVELS[-1]}%",
    )
    new = delivered.sent - delivered.sent_again
    yield Check(
        (delivered.accepted, delivered.duplicates, delivered.rejected) == (new, delivered.sent_again, 0),
        f"{delivered.accepted:,} of {new:,} events were stored; {delivered.duplicates:,} of the "
        f"{delivered.sent_again:,} sent twice were known as duplicates; {delivered.rejected:,} were rejected",
    )
    counted = {each["variation_id"]: (each["n"], successes_of(each)) for each in primary_of(results)}
    seen = {id: (exposed[id], succeeded[id]) for id in running.names}
    yield Check(
        counted == seen and results["population"]["exposed"] == n,
        f"the server counted {sum(n for n, _ in counted.values()):,} devices and "
        f"{sum(s for _, s in counted.values()):,} successes; the browsers saw {n:,} and {sum(succeeded.values()):,}, "
        "by variation the same"
        if counted == seen
        else f"by variation {counted} against {seen}",
    )


def primary_of(results: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the primary metric of each variation."""
    variations: Sequence[Mapping[str, Any]] = results["metrics"][0]["variations"]
    return variations


def successes_of(variation: Mapping[str, Any]) -> int:
    """Return how many of a variation's subjects had the outcome: its value is their share."""
    count: float = (variation["value"] or 0) * variation["n"]
    return round(count)


def table_of(results: Mapping[str, Any], rates: Mapping[str, float]) -> Table:
    """Return the results as a table that fits 80 columns, beside the rates that the demo gave the people."""
    titles = ("variation", "devices", "logged in", "rate", "truth", "effect", "95% interval", "p")
    table = Table(box=SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), show_edge=False)
    for title in titles:
        table.add_column(title, justify="left" if title == "variation" else "right", no_wrap=True)
    for each in primary_of(results):
        name, truth = each["variation_name"], rates[each["variation_name"]]
        cells = [name, f"{each['n']:,}", f"{successes_of(each):,}", _percent(each["value"]), _percent(truth)]
        if "p_value" in each:
            low, high = each["interval"]
            cells += [_points(each["effect"]), f"{_points(low)}…{_points(high)}", f"{each['p_value']:.1g}"]
        table.add_row(*cells)
    return table


def meaning_of(results: Mapping[str, Any], rates: Mapping[str, float]) -> str:
    """Return what the results say, and whether that is the truth."""
    compared = next((each for each in primary_of(results) if "p_value" in each), None)
    control = next(each for each in primary_of(results) if each["is_control"])
    if compared is None:
        return f"Nothing can be said yet: {results['why']}"
    name, p, (low, high) = compared["variation_name"], compared["p_value"], compared["interval"]
    truth = rates[name] - rates[control["variation_name"]]
    more = "more" if compared["effect"] > 0 else "fewer"
    found = (
        f"Of 100 people {abs(compared['effect']) * 100:.1f} {more} log in with the {name} than with the control. "
        f"If both were alike, {_one_in(p)} experiments of this size would show a difference as large"
    )
    verdict = (
        "so chance is a poor explanation."
        if p < results["analysis"]["alpha"]
        else "so this may be chance: it takes more logins to tell."
    )
    caught = "holds" if low <= truth <= high else "misses, as one in twenty does,"
    return f"{found}, {verdict} The interval {caught} the true effect, {_points(truth)}."


def _share_check(count: int, n: int, expected: float, what: str) -> Check:
    share = count / n
    # Chernoff's bound, which holds at every n (Hoeffding 1963, theorem 1): a share is this far from what is expected
    # with a probability of at most exp(-n·KL) on each side.
    is_plausible = n * _divergence(share, expected) <= math.log(2 / FALSE_ALARM)
    return Check(is_plausible, f"{what}: {count:,} of {n:,}, {share:.1%} where {expected:.0%} is expected")


def _divergence(share: float, expected: float) -> float:
    """Return the Kullback–Leibler divergence of two coins."""
    pairs = ((share, expected), (1 - share, 1 - expected))
    return sum(p * math.log(p / q) for p, q in pairs if p > 0)


def _recomputed(person: Person, running: Running) -> str:
    """Return the variation by ``docs/bucketing.md``, with none of abgate's own code, as an analyst would compute it."""
    digest = sha256(f"{running.id}:{person.device}".encode()).hexdigest()
    control, modal = running.names
    return control if (int(digest[:16], 16) * 10_000) >> 64 < 5_000 else modal


def _percent(rate: float | None) -> str:
    return "" if rate is None else f"{rate:.2%}"


def _points(difference: float) -> str:
    return f"{difference * 100:+.2f}"


def _one_in(p: float) -> str:
    if p > 0.1:
        return f"{p * 100:.0f} of 100"
    return f"1 of {float(f'{1 / p:.1g}'):,.0f}" if p > 1e-12 else "fewer than 1 of a million million"
