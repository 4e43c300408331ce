"""Our own OpenAPI 3.1 document: Litestar lists the operations, msgspec says exactly what each body is read as.

What neither knows is added here: rules between fields, the headers of every answer, and the links from what creates
a thing to what is done with it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import msgspec
from litestar import Response, get
from litestar.datastructures import State
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.openapi.spec import (
    Components,
    Link,
    OpenAPI,
    OpenAPIResponse,
    Operation,
    SecurityScheme,
)
from msgspec import Struct, UnsetType

from abgate.management import bodies, oauth

ASSETS = Path(__file__).parent / "static" / "vendor" / "swagger-ui"
PAGE_PATH = "/docs"
ASSETS_PATH = f"{PAGE_PATH}/assets"

JSONSchema = dict[str, Any]

NULL: JSONSchema = {"type": "null"}
NO_NUL = r"^[^\x00]*$"
TEXT: JSONSchema = {"type": "string", "pattern": NO_NUL}
ANY_VALUE: JSONSchema = {"$ref": "#/components/schemas/Value"}
VALUE: JSONSchema = {
    "title": "Value",
    "description": "Any JSON value without NUL characters and without integers past 64 bits.",
    "anyOf": [
        NULL,
        {"type": "boolean"},
        {"type": "number"},
        TEXT,
        {"type": "array", "items": ANY_VALUE},
        {"type": "object", "propertyNames": {"pattern": NO_NUL}, "additionalProperties": ANY_VALUE},
    ],
}


def _header(meaning: str, kind: str) -> JSONSchema:
    # Not Litestar's own object, of which there would be thousands: to write them took a tenth of the start.
    return {"description": meaning, "required": True, "schema": {"type": kind}}


RATE_LIMIT_HEADERS = {
    "X-RateLimit-Limit": _header("Requests that this token may send within a second.", "integer"),
    "X-RateLimit-Remaining": _header("Requests that are left of them.", "integer"),
    "X-RateLimit-Reset": _header("When they are all back: Unix time in seconds.", "integer"),
}
RETRY_AFTER = {"Retry-After": _header("In how many seconds to try again.", "integer")}
REFUSAL_HEADERS = {
    "401": {"WWW-Authenticate": _header("What kind of token is expected.", "string")},
    "403": {"WWW-Authenticate": _header("Which scope is missing.", "string")},
    "429": RETRY_AFTER,
    "503": RETRY_AFTER,
}


def openapi_config() -> OpenAPIConfig:
    """Return the configuration that serves ``/openapi.json`` and, without any request elsewhere, ``/docs``."""
    return OpenAPIConfig(
        title="abgate Management API",
        version="2",
        description="The experimentation group of the Auth0 Management API, self-hosted.",
        # Not "/": Litestar answers every unknown path below this one with a page of its own.
        path=PAGE_PATH,
        components=Components(
            security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer", bearer_format="JWT")}
        ),
        render_plugins=[
            SwaggerRenderPlugin(
                path="/",
                js_url=f"{ASSETS_PATH}/swagger-ui-bundle.js",
                css_url=f"{ASSETS_PATH}/swagger-ui.css",
                standalone_preset_js_url=f"{ASSETS_PATH}/swagger-ui-standalone-preset.js",
                favicon="<link rel='icon' href='data:,'>",
            ),
        ],
    )


@get("/openapi.json", include_in_schema=False, sync_to_thread=False)
def openapi_json(state: State) -> Response[bytes]:
    """Return the document as `complete` left it."""
    return Response(state.openapi_json, media_type="application/json")


def complete(document: OpenAPI) -> bytes:
    """Complete the document that Litestar made, and return it as JSON."""
    schemas: dict[str, Any] = (document.components and document.components.schemas) or {}
    schemas.update(_struct_schemas(schemas))
    operations = dict(_operations(document))
    for (_, path), operation in operations.items():
        for parameter in operation.parameters or []:
            parameter.schema = _query_schema(parameter.schema)  # type: ignore[union-attr]
        if path.startswith("/api/v2/"):
            _add_headers(operation)
    _add_links(operations)
    return msgspec.json.encode(document.to_schema())


def _operations(document: OpenAPI) -> Iterator[tuple[tuple[str, str], Operation]]:
    for path, item in (document.paths or {}).items():
        for method in ("get", "post", "put", "patch", "delete"):
            operation = getattr(item, method)
            if operation is not None:
                yield (method, path), operation


def _struct_schemas(named: Mapping[str, Any]) -> dict[str, JSONSchema]:
    """Return the schema of every struct whose name is among `named`, and of what they refer to."""
    structs = [struct for module in (bodies, oauth) for name, struct in _structs(module) if name in named]
    _, components = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    schemas: dict[str, JSONSchema] = {name: _exact(schema) for name, schema in components.items()}
    for struct in structs:
        if not struct.__struct_config__.forbid_unknown_fields:
            schemas[struct.__name__]["required"] = _always_answered(struct)
    _add_rules(schemas)
    return schemas


def _structs(module: ModuleType) -> Iterator[tuple[str, type[Struct]]]:
    for name, value in vars(module).items():
        if isinstance(value, type) and issubclass(value, Struct):
            yield name, value


def _always_answered(struct: type[Struct]) -> list[str]:
    hints = get_type_hints(struct)
    names = zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True)
    return [written for name, written in names if UnsetType not in getattr(hints[name], "__args__", ())]


def _exact(schema: Any) -> Any:
    """Return the schema with what every body is checked for: no text holds a NUL.

    Patterns come out as every dialect reads them: white space and the line break are what they are in Python.
    """
    if isinstance(schema, list):
        return [_exact(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    # A default of null only says that the field may be left out, which `required` says as well.
    made = {name: _exact(each) for name, each in schema.items() if (name, each) != ("default", None)}
    if isinstance(made.get("pattern"), str):
        made["pattern"] = made["pattern"].replace(r"\S", r"[^\s\x1c-\x1f\x85]").replace(".*", r"[^\n]*")
    elif made.get("type") == "string" and not {"enum", "format"} & made.keys():
        made["pattern"] = NO_NUL
    if made == {"type": "array"}:
        made["items"] = ANY_VALUE
    if made == {"type": "object"}:
        made["additionalProperties"] = ANY_VALUE
    if isinstance(made.get("additionalProperties"), dict):
        made.setdefault("propertyNames", {"pattern": NO_NUL})
    return made


def _add_rules(schemas: dict[str, JSONSchema]) -> None:
    """Add the rules between fields: they are checked when the body has been read, so msgspec does not know them."""
    schemas["Value"] = VALUE
    schemas["Override"]["properties"]["value"] = ANY_VALUE
    for name, schema in schemas.items():
        if name.startswith("Update"):
            schema["minProperties"] = 1
    _need_one_of(schemas["Operation"], [["contains"], ["starts_with"], ["ends_with"], ["exists"]])
    _need_one_of(schemas["RuleInput"], [["match"], ["not_match"], ["match", "not_match"], ["match_type", "conditions"]])
    _need_conditions(schemas)
    _need_one_kind_of_allocation(schemas["AllocationInput"])
    if "EventFilter" in schemas:  # the first generation has no metrics
        schemas["EventFilter"]["anyOf"] = [{"required": ["types"]}, {"required": ["event"]}]
    # Known only to be refused by name.
    for name in ("feature_flag_id", "allocation_strategy", "default_config"):
        del schemas["UpdateExperiment"]["properties"][name]
    for name in ("UpdateExperiment", "UpdateExperimentStatus"):
        schemas[name]["properties"]["status"] = {"enum": ["active", "archived", "completed", "paused"]}
    # A stream is suspended only by failing.
    schemas["UpdateLogStream"]["properties"]["status"] = {"enum": ["active", "paused"]}


def _need_one_of(schema: JSONSchema, groups: list[list[str]]) -> None:
    """Make `schema` one of several closed objects: in each, the fields of one group are given, the others at most null.

    They exclude each other, which is also the form that generators of examples and of clients handle best.
    """
    properties = schema.pop("properties")
    schema["oneOf"] = [
        {
            "type": "object",
            "properties": {name: _not_null(each) if name in group else NULL for name, each in properties.items()},
            "required": group,
            "additionalProperties": False,
        }
        for group in groups
    ]
    for name in ("type", "required", "additionalProperties"):
        schema.pop(name, None)


def _need_one_kind_of_allocation(schema: JSONSchema) -> None:
    """Make `schema` one of: a share of the traffic, a segment (which may be given later), everyone left."""
    properties = schema["properties"]
    no_fallback = {"is_fallback": {"enum": [False, None]}}
    no_segment = {"segment_id": NULL, "priority": NULL}
    kinds: list[tuple[list[str], JSONSchema]] = [
        (["weight"], {"weight": _not_null(properties["weight"])} | no_segment | no_fallback),
        ([], {"weight": NULL} | no_fallback),
        (["is_fallback"], {"is_fallback": {"const": True}, "weight": NULL} | no_segment),
    ]
    schema["oneOf"] = [
        {
            "type": "object",
            "properties": properties | narrowed,
            "required": [*schema["required"], *more],
            "additionalProperties": False,
        }
        for more, narrowed in kinds
    ]
    for name in ("type", "properties", "required", "additionalProperties"):
        del schema[name]


def _need_conditions(schemas: dict[str, JSONSchema]) -> None:
    conditions = schemas["Conditions"]
    schemas["Expression"] = _not_null(next(iter(conditions["properties"].values())))
    expression = {"$ref": "#/components/schemas/Expression"}
    for name in conditions["properties"]:
        conditions["properties"][name] = {"anyOf": [expression, NULL]}
    conditions["anyOf"] = [{"required": [name], "properties": {name: expression}} for name in conditions["properties"]]
    conditions["maxProperties"] = 10


def _not_null(schema: JSONSchema) -> JSONSchema:
    kept = [each for each in schema["anyOf"] if each != NULL]
    return kept[0] if len(kept) == 1 else {"anyOf": kept}


def _query_schema(schema: Any) -> Any:
    """Return the schema of a parameter without null, which no query can say, and without NUL."""
    made = schema.to_schema()
    of = made.pop("oneOf", None)
    if of is not None:
        made |= next(each for each in of if each != NULL)
    if isinstance(made.get("type"), list):
        made["type"] = "string"
        made["enum"] = [value for value in made["enum"] if value is not None]
    return _exact(made)


def _add_headers(operation: Operation) -> None:
    for status, response in (operation.responses or {}).items():
        if not isinstance(response, OpenAPIResponse):
            continue
        headers: dict[str, Any] = {**(response.headers or {}), **RATE_LIMIT_HEADERS, **REFUSAL_HEADERS.get(status, {})}
        response.headers = headers


def _add_links(operations: Mapping[tuple[str, str], Operation]) -> None:
    """Say how the id in the answer to a creation leads to every operation on what was created."""
    for (method, path), operation in operations.items():
        created = (operation.responses or {}).get("201")
        if method != "post" or not isinstance(created, OpenAPIResponse):
            continue
        outer = {"id": "$request.path.id"} if "{id}" in path else {}
        inner = "vid" if outer else "id"
        created.links = {
            str(other.operation_id): Link(
                operation_id=other.operation_id, parameters=outer | {inner: "$response.body#/id"}
            )
            for (_, other_path), other in operations.items()
            if other_path.startswith(f"{path}/{{{inner}}}") and (outer or "{vid}" not in other_path)
        }
