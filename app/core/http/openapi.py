"""Request bodies in openapi.json, for routes that parse the body themselves."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

_REFERENCE = "#/components/schemas/{model}"


def request_body_schema(*models: type[BaseModel]) -> dict[str, Any]:
    """The `openapi_extra` of a route that parses its body with `read_model`: one of `models`."""
    schemas = [{"$ref": _REFERENCE.format(model=model.__name__)} for model in models]
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def register_models(app: FastAPI, *models: type[BaseModel]) -> None:
    """Add the schemas of `models` to openapi.json, where `request_body_schema` refers to them."""

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            document = FastAPI.openapi(app)
            schemas = models_json_schema([(model, "validation") for model in models], ref_template=_REFERENCE)[1]
            components = document.setdefault("components", {})
            components["schemas"] = schemas["$defs"] | components.get("schemas", {})
        return FastAPI.openapi(app)

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it
