"""How a page becomes an answer: Jinja templates, strictly escaped, under one Content-Security-Policy."""

import json
from datetime import datetime
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import Response
from litestar.enums import MediaType
from markupsafe import Markup, escape
from msgspec import UNSET

from abgate.core.events import parse_moment, to_timestamp
from abgate.dashboard import assets, numbers
from abgate.dashboard.visits import Visit

# The one style element is the chart library's own (plot/src/plot.js, with the class name "plot"), by its hash.
PLOT_STYLE = "sha256-+TfQir1nvDucAdvE6XUQBt4ayUjpAWkbw2kCdSfekHM="
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        f"style-src 'self' '{PLOT_STYLE}'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Pages show what only the signed-in may see, and show it as it is now.
    "Cache-Control": "no-store",
}


def render(visit: Visit | None, template: str, *, status: int = 200, **context: Any) -> Response[str]:
    """Return the template's page as the answer."""
    html = environment.get_template(template).render(visit=visit, **context)
    return Response(html, status_code=status, media_type=MediaType.HTML, headers=dict(HEADERS))


def redirect(visit: Visit | None, path: str) -> Response[str]:
    """Return the answer that sends the browser on to `path`, of this site, with GET."""
    if visit is not None and visit.is_fragment:
        return Response("", status_code=204, headers=HEADERS | {"HX-Redirect": path})
    return Response("", status_code=303, media_type=MediaType.HTML, headers=HEADERS | {"Location": path})


def download(name: str, text: str) -> Response[str]:
    """Return a CSV file of this name."""
    disposition = f"attachment; filename*=UTF-8''{quote(name)}"
    return Response(text, media_type="text/csv; charset=utf-8", headers=HEADERS | {"Content-Disposition": disposition})


def _time(moment: Any) -> Markup:
    """Return a moment as the server knows it, in UTC; `time.js` rewrites it for the viewer's own zone."""
    if moment is None or moment is UNSET:
        return Markup("")
    try:
        known = to_timestamp(parse_moment(moment))
    except ValueError:
        # Events are shown as they were sent, whatever stands there for a date.
        return _name(moment)
    at = datetime.fromisoformat(known)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        known, f"{at:%Y-%m-%d %H:%M:%S} UTC", f"{at:%d %b %Y, %H:%M} UTC"
    )


def _moment(at: int) -> Markup:
    """Return a moment of the event log, in microseconds since 1970."""
    return _time(to_timestamp(at))


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _coded(text: str) -> Markup:
    """Return words of ours with what stands between backticks as code."""
    around = (Markup("{}"), Markup("<code>{}</code>"))
    return Markup("").join(around[place % 2].format(part) for place, part in enumerate(text.split("`")))


def _name(text: Any) -> Markup:
    """Return somebody's own words, kept from turning the direction of what stands around them."""
    return Markup("<bdi>{}</bdi>").format(escape(text))


environment = Environment(
    loader=PackageLoader("abgate.dashboard"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
environment.filters.update(
    {
        "time": _time,
        "moment": _moment,
        "pretty": _pretty,
        "name": _name,
        "coded": _coded,
        "count": numbers.count,
        "percent": numbers.percent,
        "probability": numbers.probability,
    }
)
environment.globals.update({"assets": assets.PATH, "UNSET": UNSET})
environment.tests["given"] = lambda value: value is not None and value is not UNSET
