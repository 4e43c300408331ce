"""``abgate plan``: how many subjects and days an experiment takes, or what it will find."""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer

from abgate.analysis.analyst import Analyst
from abgate.analysis.sizing import plan_experiment
from abgate.cli.opened import Data, Database, TenantId, opened
from abgate.cli.plan_table import table_of
from abgate.cli.printing import open_console, print_json
from abgate.core.errors import InvalidInput
from abgate.core.plan_request import PlanRequest, checked_request
from abgate.management.bodies import PlanExperiment
from abgate.management.decoding import decode
from abgate.storage.tenants import DEFAULT_TENANT


def plan(
    *,
    rate: Annotated[
        float | None, typer.Option("--rate", help="The control's outcome as a share, such as 0.92.")
    ] = None,
    mean: Annotated[float | None, typer.Option("--mean", help="The control's outcome where it is a number.")] = None,
    sd: Annotated[float | None, typer.Option("--sd", help="Its standard deviation from subject to subject.")] = None,
    effect: Annotated[float | None, typer.Option("--effect", help="To be found: treatment − control.")] = None,
    relative_effect: Annotated[
        float | None, typer.Option("--relative-effect", help="To be found, as a share of the control's outcome.")
    ] = None,
    subjects: Annotated[
        int | None, typer.Option("--subjects", help="Of all variations: which effect is found?")
    ] = None,
    days: Annotated[int | None, typer.Option("--days", help="At the traffic: which effect is found?")] = None,
    alpha: Annotated[float, typer.Option("--alpha", help="The rate of false alarms, of all treatments.")] = 0.05,
    power: Annotated[float, typer.Option("--power", help="The chance to find the effect.")] = 0.8,
    weights: Annotated[
        str, typer.Option("--weights", metavar="PERCENT,PERCENT…", help="Of the variations, the control first.")
    ] = "50,50",
    per_day: Annotated[float | None, typer.Option("--per-day", help="New subjects a day.")] = None,
    experiment: Annotated[
        str | None, typer.Option("--experiment", help="Id or name of one whose exposures tell the traffic.")
    ] = None,
    flow: Annotated[str | None, typer.Option("--flow", help="The flow whose exposures tell the traffic.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the Management API answers.")] = False,
    tenant: TenantId = DEFAULT_TENANT,
    data: Data = None,
    database: Database = None,
) -> None:
    """Plan an experiment: the subjects and days that an effect takes, or the effect that so many find.

    Give what the control does (--rate, or --sd with --mean) and one of --effect, --relative-effect, --subjects, --days.
    The exposures of --experiment and --flow are read from the lake, without a server.
    """
    given: dict[str, Any] = {
        **{"rate": rate, "mean": mean, "sd": sd, "effect": effect, "relative_effect": relative_effect},
        **{"subjects": subjects, "days": days, "alpha": alpha, "power": power, "weights": _percents(weights)},
        **{"per_day": per_day, "authentication_flow": flow},
    }
    if experiment is None and flow is None:
        made = plan_experiment(_request(given))
    else:
        with opened(data, database) as here:
            here.tenant(tenant)
            if experiment is not None:
                given["experiment_id"] = here.find_experiment(tenant, experiment)
            analyst = Analyst(here.engine, here.lake)
            made = analyst.plan(tenant, _request(given), now=datetime.now(UTC))
    if as_json:
        print_json(made)
        return
    open_console().print(table_of(made, is_share=rate is not None))


def _percents(weights: str) -> list[int]:
    try:
        return [int(each) for each in weights.split(",")]
    except ValueError:
        raise InvalidInput("--weights", "must be whole percents such as 50,50 or 50,25,25") from None


def _request(given: dict[str, Any]) -> PlanRequest:
    # As the API reads a body, so that a rule is told in the same words.
    return checked_request(decode(msgspec.json.encode(given), PlanExperiment))
