"""Every management route and its scope, on one screen."""

import inspect
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin, get_type_hints

from litestar import Router, delete, get, patch, post, put, route
from litestar.di import Provide
from litestar.exceptions import MethodNotAllowedException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import QueryParameter

from abgate.management import experiments as e
from abgate.management import feature_flags as f
from abgate.management import log_streams as ls
from abgate.management import logs as l
from abgate.management import metrics as m
from abgate.management import segments as s
from abgate.management.bodies import ErrorAnswer
from abgate.management.plan import create_plan
from abgate.management.requests import ManagementRequest, admit, provide_caller
from abgate.management.results import get_results

READ, CREATE = "read:experimentation", "create:experimentation"
UPDATE, DELETE = "update:experimentation", "delete:experimentation"
READ_LOGS, READ_STREAMS, CREATE_STREAMS = "read:logs", "read:log_streams", "create:log_streams"
UPDATE_STREAMS, DELETE_STREAMS = "update:log_streams", "delete:log_streams"

EXPERIMENTS, FLAGS, SEGMENTS, METRICS = "/experiments", "/feature-flags", "/segments", "/metrics"
VARIATIONS = f"{FLAGS}/{{id:str}}/variations"

Operation = Callable[..., Any]
Route = tuple[Any, str, Operation, str, int]

CONTRACT: list[Route] = [
    (get, EXPERIMENTS, e.list_experiments, READ, 200),
    (post, EXPERIMENTS, e.create_experiment, CREATE, 201),
    (get, EXPERIMENTS + "/{id:str}", e.get_experiment, READ, 200),
    (patch, EXPERIMENTS + "/{id:str}", e.update_experiment, UPDATE, 200),
    (delete, EXPERIMENTS + "/{id:str}", e.delete_experiment, DELETE, 204),
    (post, EXPERIMENTS + "/{id:str}/status", e.update_experiment_status, UPDATE, 200),
    (post, EXPERIMENTS + "/{id:str}/validate", e.validate_experiment, READ, 200),
    (post, EXPERIMENTS + "/{id:str}/advance-ramp", e.advance_ramp, UPDATE, 200),
    (get, FLAGS, f.list_feature_flags, READ, 200),
    (post, FLAGS, f.create_feature_flag, CREATE, 201),
    (get, FLAGS + "/{id:str}", f.get_feature_flag, READ, 200),
    (patch, FLAGS + "/{id:str}", f.update_feature_flag, UPDATE, 200),
    (delete, FLAGS + "/{id:str}", f.delete_feature_flag, DELETE, 204),
    (post, FLAGS + "/{id:str}/status", f.update_feature_flag_status, UPDATE, 200),
    (get, VARIATIONS, f.list_variations, READ, 200),
    (post, VARIATIONS, f.create_variation, CREATE, 201),
    (get, VARIATIONS + "/{vid:str}", f.get_variation, READ, 200),
    (patch, VARIATIONS + "/{vid:str}", f.update_variation, UPDATE, 200),
    (delete, VARIATIONS + "/{vid:str}", f.delete_variation, DELETE, 204),
    (get, SEGMENTS, s.list_segments, READ, 200),
    (post, SEGMENTS, s.create_segment, CREATE, 201),
    (get, SEGMENTS + "/{id:str}", s.get_segment, READ, 200),
    (patch, SEGMENTS + "/{id:str}", s.update_segment, UPDATE, 200),
    (delete, SEGMENTS + "/{id:str}", s.delete_segment, DELETE, 204),
]

OURS: list[Route] = [
    (post, EXPERIMENTS + "/{id:str}/rollout", e.roll_out_variation, UPDATE, 200),
    (get, EXPERIMENTS + "/{id:str}/analysis", m.get_analysis, READ, 200),
    (put, EXPERIMENTS + "/{id:str}/analysis", m.set_analysis, UPDATE, 200),
    (get, EXPERIMENTS + "/{id:str}/results", get_results, READ, 200),
    (get, EXPERIMENTS + "/{id:str}/history", e.list_experiment_history, READ, 200),
    (get, METRICS, m.list_metrics, READ, 200),
    (post, METRICS, m.create_metric, CREATE, 201),
    (get, METRICS + "/{id:str}", m.get_metric, READ, 200),
    (patch, METRICS + "/{id:str}", m.update_metric, UPDATE, 200),
    (delete, METRICS + "/{id:str}", m.delete_metric, DELETE, 204),
    (post, "/plan", create_plan, READ, 200),
    (get, "/history", e.list_history, READ, 200),
]

LOGS: list[Route] = [
    (get, "/logs", l.list_logs, READ_LOGS, 200),
    (get, "/logs/{id:str}", l.get_log, READ_LOGS, 200),
    (get, "/log-streams", ls.list_log_streams, READ_STREAMS, 200),
    (post, "/log-streams", ls.create_log_stream, CREATE_STREAMS, 200),
    (get, "/log-streams/{id:str}", ls.get_log_stream, READ_STREAMS, 200),
    (patch, "/log-streams/{id:str}", ls.update_log_stream, UPDATE_STREAMS, 200),
    (delete, "/log-streams/{id:str}", ls.delete_log_stream, DELETE_STREAMS, 204),
]

_REFUSALS = {
    400: "The input or the present state breaks a rule; the message names it.",
    401: "There is no valid token.",
    403: "The token lacks the scope.",
    404: "There is no such thing.",
    409: "Something else is in the way.",
    413: "The body is larger than 1 MB.",
    415: "The body is not JSON.",
    429: "Too many requests in one second; Retry-After says when to go on.",
    503: "The database is away; Retry-After says when to try again.",
}


def management_routers(generation: int) -> list[Router]:
    """Return the routers of the published groups; what is ours is left out in the contract's first generation."""
    experimentation = CONTRACT if generation == 1 else [*CONTRACT, *OURS]
    return [_router("/api/v2/experimentation", experimentation), _router("/api/v2", LOGS)]


def _router(prefix: str, routes: list[Route]) -> Router:
    methods: dict[str, list[str]] = {}
    for method, path, *_ in routes:
        methods.setdefault(path, []).append(method.__name__.upper())
    return Router(
        prefix,
        route_handlers=[
            # First, since Litestar makes its own when a path has none.
            *(_options_refused(path, allowed) for path, allowed in methods.items()),
            *(_handler(*each) for each in routes),
        ],
        guards=[admit],
        dependencies={"caller": Provide(provide_caller, sync_to_thread=False)},
        request_class=ManagementRequest,
        security=[{"bearer": []}],
    )


def _handler(method: Any, path: str, operation: Operation, scope: str, status: int) -> HTTPRouteHandler:
    has_body = "data" in inspect.signature(operation).parameters
    refusals = {code: words for code, words in _REFUSALS.items() if has_body or code not in (413, 415)}
    handler: HTTPRouteHandler = method(
        path,
        status_code=status,
        sync_to_thread=True,
        operation_id=operation.__name__,
        summary=(operation.__doc__ or "").partition(".")[0].partition(":")[0],
        tags=[path.split("/")[1]],
        scope=scope,
        query=_query_parameters(operation),
        responses={
            code: ResponseSpec(ErrorAnswer, description=words, generate_examples=False)
            for code, words in refusals.items()
        },
    )(operation)
    return handler


def _options_refused(path: str, allowed: list[str]) -> HTTPRouteHandler:
    """Return a handler in the place of Litestar's own, which would leave out all but one of the path's methods."""

    @route(path, http_method="OPTIONS", include_in_schema=False, sync_to_thread=False)
    def refuse_options() -> None:
        raise MethodNotAllowedException(headers={"allow": ", ".join(allowed)})

    return refuse_options


def _query_parameters(operation: Operation) -> dict[str, tuple[str, ...]]:
    """Return the name of each query parameter, with the values that it may have where they are a closed set."""
    parameters: dict[str, tuple[str, ...]] = {}
    for hint in get_type_hints(operation, include_extras=True).values():
        for extra in get_args(hint)[1:]:
            if isinstance(extra, QueryParameter) and extra.name:
                literals = (each for each in get_args(get_args(hint)[0]) if get_origin(each) is Literal)
                parameters[extra.name] = get_args(next(literals, None))
    return parameters
