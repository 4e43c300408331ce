"""Every page and its scope, on one screen."""

from collections.abc import Callable
from typing import Any

from litestar import Router, get, post
from litestar.connection import ASGIConnection
from litestar.datastructures import CacheControlHeader
from litestar.di import Provide
from litestar.exceptions import HTTPException, NotFoundException
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.static_files import create_static_files_router

from abgate.core.errors import Refusal
from abgate.dashboard import assets, errors
from abgate.dashboard.pages import (
    edit_experiment,
    experiment,
    experiments,
    feature_flags,
    log_streams,
    logs,
    new_experiment,
    openid,
    planning,
    segments,
    settings,
    sign_in,
    why,
)
from abgate.dashboard.roles import MANAGE_KEYS
from abgate.dashboard.visits import SignInNeeded, provide_visit

Connection = ASGIConnection[Any, Any, Any, Any]

READ, CREATE = "read:experimentation", "create:experimentation"
UPDATE, DELETE = "update:experimentation", "delete:experimentation"

PAGES: list[tuple[Any, str, Callable[..., Any], str]] = [
    (get, "/", experiments.show_experiments, READ),
    (get, "/experiments/new", new_experiment.show_new_experiment, CREATE),
    (post, "/experiments/new", new_experiment.create_experiment, CREATE),
    (post, "/experiments/new/check", new_experiment.check_experiment, CREATE),
    (post, "/experiments/new/plan", planning.plan_experiment, READ),
    (get, "/experiments/{id:str}", experiment.show_experiment, READ),
    (post, "/experiments/{id:str}", experiment.act_on_experiment, UPDATE),
    (get, "/experiments/{id:str}/results", experiment.show_results, READ),
    (get, "/experiments/{id:str}/results/progress", experiment.show_progress, READ),
    (get, "/experiments/{id:str}/results/{file:str}", experiment.download_figure, READ),
    (get, "/experiments/{id:str}/decision", experiment.show_decision, READ),
    (get, "/experiments/{id:str}/edit", edit_experiment.show_edit, UPDATE),
    (post, "/experiments/{id:str}/edit", edit_experiment.save_edit, UPDATE),
    (get, "/feature-flags", feature_flags.show_feature_flags, READ),
    (post, "/feature-flags", feature_flags.create_feature_flag, CREATE),
    (get, "/feature-flags/{id:str}", feature_flags.show_feature_flag, READ),
    (post, "/feature-flags/{id:str}", feature_flags.change_feature_flag, UPDATE),
    (get, "/segments", segments.show_segments, READ),
    (get, "/segments/new", segments.show_new_segment, CREATE),
    (post, "/segments/new", segments.create_segment, CREATE),
    (get, "/segments/{id:str}", segments.show_segment, READ),
    (post, "/segments/{id:str}", segments.change_segment, UPDATE),
    (get, "/why", why.show_why, READ),
    (get, "/logs", logs.show_logs, "read:logs"),
    (get, "/logs/event", logs.show_log, "read:logs"),
    (get, "/settings", settings.show_settings, READ),
    (post, "/settings", settings.change_keys, MANAGE_KEYS),
    (post, "/settings/log-streams", log_streams.create_log_stream, "create:log_streams"),
    (post, "/settings/log-streams/{id:str}", log_streams.change_log_stream, "update:log_streams"),
    (post, "/sign-out", sign_in.sign_out, READ),
]


def pages_router() -> Router:
    """Return the router of every page and of what they load."""
    return Router(
        "/",
        route_handlers=[
            *(_handler(*page) for page in PAGES),
            sign_in.show_sign_in,
            sign_in.sign_in,
            openid.begin_openid,
            openid.finish_openid,
            create_static_files_router(
                assets.PATH,
                [assets.STATIC],
                include_in_schema=False,
                guards=[_is_asset],
                cache_control=CacheControlHeader(max_age=assets.LIFE_S, public=True, immutable=True),
            ),
        ],
        dependencies={"visit": Provide(provide_visit)},
        exception_handlers={
            SignInNeeded: errors.ask_to_sign_in,
            Refusal: errors.answer_refusal,
            HTTPException: errors.answer_http_exception,
            Exception: errors.answer_fault,
        },
    )


def _is_asset(connection: Connection, _handler: BaseRouteHandler) -> None:
    # The file system would be asked otherwise for what it has no name for.
    if str(connection.path_params["file_path"]).lstrip("/") not in assets.FILES:
        raise NotFoundException


def _handler(method: Any, path: str, page: Callable[..., Any], scope: str) -> HTTPRouteHandler:
    handler: HTTPRouteHandler = method(
        path, status_code=200, sync_to_thread=True, include_in_schema=False, scope=scope
    )(page)
    return handler
