"""``abgate simulate``: how often abgate is wrong, on made-up logins of which the truth is known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import reduce
from multiprocessing import get_context
from operator import add
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec.structs import replace
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from abgate.cli.printing import open_console, print_json
from abgate.cli.progress import bar
from abgate.core.errors import InvalidInput
from abgate.dashboard.numbers import count

if TYPE_CHECKING:
    from abgate.analysis.simulation import Method, Setup, Tally

POWER = 0.8
"""An effect that is not given is the one that the fixed test finds with this power."""

TITLES: Mapping[Method, str] = {
    "fixed": "one look at the end",
    "peeking": "the same, every day",
    "always_valid": "always valid",
    "always_valid_unplanned": "unplanned",
    "group_sequential": "horizon",
    "srm": "SRM",
}


def simulate(
    *,
    aa: Annotated[bool, typer.Option("--aa", help="Without an effect: whatever is found is a false alarm.")] = False,
    experiments: Annotated[
        int, typer.Option("--experiments", min=1, max=1_000_000, help="How many of each scenario.")
    ] = 2_000,
    rate: Annotated[
        float | None,
        typer.Option("--rate", min=0.001, max=0.999, help="The control's rate, for a scenario of one's own."),
    ] = None,
    per_day: Annotated[
        int | None, typer.Option("--per-day", min=10, max=10_000_000, help="Its subjects a day, half of them treated.")
    ] = None,
    effect: Annotated[
        float | None, typer.Option("--effect", help="Its true effect; unset, what one look at the end finds at 80%.")
    ] = None,
    days: Annotated[int, typer.Option("--days", min=1, max=90, help="For how long, with a look each day.")] = 28,
    alpha: Annotated[
        float, typer.Option("--alpha", min=0.001, max=0.2, help="The rate of false alarms to hold.")
    ] = 0.05,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed makes the same experiments.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print shares of the experiments as JSON.")] = False,
) -> None:
    """Run made-up experiments on login, watch each by every method, and count what was found and what intervals held.

    Without --rate and --per-day, of seven scenarios of sign-in traffic. "unplanned" is always valid with the tuning of
    an experiment without a horizon; "horizon" looks each day against its bounds; SRM is the mismatch of the shares.
    """
    _check_effect(effect, aa=aa, has_scenario=rate is not None)
    setups = _setups(rate, per_day, days, alpha)
    if not aa:
        setups = [_with_truth(setup, effect) for setup in setups]
    tallies = list(_run(setups, experiments, seed))
    if as_json:
        scenarios = [_to_dict(setup, tally) for setup, tally in zip(setups, tallies, strict=True)]
        print_json({"seed": seed, "days": days, "alpha": alpha, "scenarios": scenarios})
    else:
        open_console().print(_report(setups, tallies, seed))


def _setups(rate: float | None, per_day: int | None, days: int, alpha: float) -> list[Setup]:
    from abgate.analysis.simulation import SETUPS, Setup

    if (rate is None) != (per_day is None):
        raise InvalidInput("--rate, --per-day", "go together: a scenario of one's own has both")
    if rate is None or per_day is None:
        return [replace(setup, days=days, alpha=alpha) for setup in SETUPS]
    return [Setup(name=f"{rate:.4g}, {per_day:,} a day", per_day=per_day, rate=rate, days=days, alpha=alpha)]


def _with_truth(setup: Setup, effect: float | None) -> Setup:
    from abgate.analysis.simulation import with_effect

    if effect is None:
        try:
            return with_effect(setup, power=POWER)
        except ValueError as error:
            raise InvalidInput("--per-day", f"{error}; give more, or an --effect") from None
    if setup.rate is None or not 0 < setup.rate + effect < 1:
        raise InvalidInput("--effect", "must leave a rate within 0 to 1")
    return replace(setup, effect=effect)


def _check_effect(effect: float | None, *, aa: bool, has_scenario: bool) -> None:
    if effect is not None and aa:
        raise InvalidInput("--effect", "goes without --aa, which is for no effect")
    if effect is not None and not has_scenario:
        raise InvalidInput("--effect", "goes with --rate and --per-day: each scenario has an effect of its own")


def _run(setups: Sequence[Setup], experiments: int, seed: int) -> Iterator[Tally]:
    import numpy as np

    from abgate.analysis import simulation

    seeds = np.random.SeedSequence(seed).spawn(len(setups))
    # Not by fork: the bar has a thread.
    with (
        ProcessPoolExecutor(mp_context=get_context("spawn")) as pool,
        bar("experiments", len(setups) * experiments) as advance,
    ):
        for setup, own in zip(setups, seeds, strict=True):
            batches = []
            for batch in simulation.simulate(setup, experiments, own, pool):
                batches.append(batch)
                advance(batch.experiments)
            yield reduce(add, batches)


def _shares(setup: Setup, counts: Sequence[int], experiments: int) -> dict[Method, float]:
    from abgate.analysis.simulation import METHODS

    shares = {method: number / experiments for method, number in zip(METHODS, counts, strict=True)}
    if setup.effect:
        # Who gets which variation does not depend on the effect: the mismatch is looked for where there is none.
        del shares["srm"]
    return shares


def _to_dict(setup: Setup, tally: Tally) -> dict[str, Any]:
    found, held = (_shares(setup, counts, tally.experiments) for counts in (tally.found, tally.held))
    held.pop("srm", None)
    known = {name: getattr(setup, name) for name in ("name", "rate", "per_day", "control_share", "effect")}
    return known | {"experiments": tally.experiments, "found": found, "intervals_held": held}


def _report(setups: Sequence[Setup], tallies: Sequence[Tally], seed: int) -> RenderableType:
    first, experiments = setups[0], tallies[0].experiments
    error = math.sqrt(first.alpha * (1 - first.alpha) / experiments)
    lines = [
        f"{count(experiments)} experiments a scenario, a look on each of {first.days} days, alpha {first.alpha:g}, "
        f"seed {seed}",
        f"a rate of {first.alpha:.3g} is known to {100 * error:.2f} points (one standard error)",
    ]
    found = [_shares(setup, tally.found, experiments) for setup, tally in zip(setups, tallies, strict=True)]
    held = [_shares(setup, tally.held, experiments) for setup, tally in zip(setups, tallies, strict=True)]
    for shares in held:
        shares.pop("srm", None)
    title = "the effect was found, %" if first.effect else "false alarms, %"
    held_title = "the true effect was in all of a method's intervals, %"
    return Group(*map(Text, lines), _table(title, setups, found), _table(held_title, setups, held))


def _table(title: str, setups: Sequence[Setup], rows: Sequence[Mapping[Method, float]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), title=title, title_justify="left")
    table.add_column("scenario", overflow="fold")
    if setups[0].effect:
        table.add_column("effect", justify="right", no_wrap=True)
    for method in rows[0]:
        table.add_column(TITLES[method], justify="right")
    for setup, shares in zip(setups, rows, strict=True):
        effect = [f"{setup.effect:+.3g}"] if setup.effect else []
        table.add_row(setup.name, *effect, *(f"{100 * share:.2f}" for share in shares.values()))
    return table
