"""The Management API as one application."""

from collections.abc import Sequence
from typing import Any

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.static_files import create_static_files_router
from sqlalchemy import Engine

from abgate.analysis.analyst import Analyst
from abgate.core.errors import Refusal
from abgate.management import oauth, openapi
from abgate.management.auth import Tenants, TokenVerifier
from abgate.management.caller import OnChange
from abgate.management.errors import answer_fault, answer_http_exception, answer_refusal
from abgate.management.rate_limit import RateLimiter
from abgate.management.requests import add_rate_limit_headers
from abgate.management.routes import management_routers
from abgate.settings import Settings
from abgate.vault import Vault

MAX_BODY_BYTES = 1_000_000


def create_management_app(
    settings: Settings,
    engine: Engine,
    *,
    vault: Vault,
    tenants: Tenants,
    verifier: TokenVerifier,
    on_change: OnChange,
    analyst: Analyst,
    health: Sequence[HTTPRouteHandler],
    pages: Router,
    lifespan: Sequence[Any],
) -> Litestar:
    """Return the application, the `pages` beside the API; `on_change` is told of every commit."""
    limiter = RateLimiter(settings.rate_limit)
    app = Litestar(
        route_handlers=[
            *management_routers(settings.api_generation),
            *oauth.routes,
            *health,
            pages,
            openapi.openapi_json,
            create_static_files_router(openapi.ASSETS_PATH, [openapi.ASSETS], include_in_schema=False),
        ],
        before_send=[add_rate_limit_headers(limiter.full)],
        exception_handlers={Refusal: answer_refusal, HTTPException: answer_http_exception, Exception: answer_fault},
        openapi_config=openapi.openapi_config(),
        request_max_body_size=MAX_BODY_BYTES,
        state=State(
            {
                "settings": settings,
                "engine": engine,
                "analyst": analyst,
                "vault": vault,
                "tenants": tenants,
                "verifier": verifier,
                "limiter": limiter,
                "on_change": on_change,
            }
        ),
        lifespan=list(lifespan),
        # Its own would write the lines of all libraries, and as plain text: `abgate.logs` does that.
        logging_config=None,
    )
    app.state.openapi_json = openapi.complete(app.openapi_schema)
    return app
