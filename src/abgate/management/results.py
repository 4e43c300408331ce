"""Results of an experiment."""

from datetime import UTC, datetime
from typing import Annotated

from litestar.params import QueryParameter

from abgate.analysis.analyst import parse_as_of
from abgate.analysis.answers import Dimension, ExperimentResults
from abgate.management.caller import Caller


def get_results(
    caller: Caller,
    id: str,
    *,
    dimension: Annotated[
        Dimension | None, QueryParameter(name="dimension", description="The attribute to break every metric down by.")
    ] = None,
    as_of: Annotated[
        str | None,
        QueryParameter(
            name="as_of", description="A past moment; the answer's own `as_of` gives the same numbers again."
        ),
    ] = None,
) -> ExperimentResults:
    """Compare an experiment's variations in every metric: effects, validity, the decision."""
    moment = None if as_of is None else parse_as_of(as_of)
    now = datetime.now(UTC)
    return caller.analyst.results(caller.tenant, id, now=now, as_of=moment, dimension=dimension)
