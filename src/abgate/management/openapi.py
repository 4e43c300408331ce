"""Our own OpenAPI 3.1 document: generated from the structs, completed with what the generator leaves out."""

from pathlib import Path
from typing import Any

from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin
from litestar.openapi.spec import Components, OpenAPI, Schema, SecurityScheme

ASSETS = Path(__file__).parent / "static" / "vendor" / "swagger-ui"
ASSETS_PATH = "/docs/assets"


def openapi_config() -> OpenAPIConfig:
    """Return the configuration that serves ``/openapi.json`` and, without any request elsewhere, ``/docs``."""
    return OpenAPIConfig(
        title="abgate Management API",
        version="2",
        description="The experimentation group of the Auth0 Management API, self-hosted.",
        path="/",
        components=Components(
            security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer", bearer_format="JWT")}
        ),
        render_plugins=[
            JsonRenderPlugin(path="/openapi.json"),
            SwaggerRenderPlugin(
                path="/docs",
                js_url=f"{ASSETS_PATH}/swagger-ui-bundle.js",
                css_url=f"{ASSETS_PATH}/swagger-ui.css",
                standalone_preset_js_url=f"{ASSETS_PATH}/swagger-ui-standalone-preset.js",
                favicon="<link rel='icon' href='data:,'>",
            ),
        ],
    )


def complete(document: OpenAPI) -> None:
    """Say what the structs hold and the generator does not: no unknown fields, at least one field in a PATCH,
    exactly one operation in an expression.
    """
    schemas: dict[str, Schema] = (document.components and document.components.schemas) or {}
    for name, schema in schemas.items():
        _complete(name, schema)


def _complete(name: str, schema: Any) -> None:
    if schema.properties is None:
        return
    if not name.endswith("Answer"):
        schema.additional_properties = False
    if name.startswith("Update"):
        schema.min_properties = 1
    if name == "Operation":
        schema.min_properties = schema.max_properties = 1
    if name == "Conditions":
        schema.min_properties, schema.max_properties = 1, 10
