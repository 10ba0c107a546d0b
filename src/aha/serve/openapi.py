"""The server's description of itself, made from the schemas that it validates with."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from aha import __version__
from aha.serve.responses import ChatCompletion, ErrorBody, ModelCard, ModelList, TextCompletion
from aha.serve.schemas import ChatRequest, CompletionRequest

REFUSALS = ("400", "401", "403", "404", "405", "408", "413", "415", "429", "500", "503")


def document() -> dict[str, Any]:
    """OpenAPI 3.1."""
    kinds: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (ChatRequest, "validation"),
        (CompletionRequest, "validation"),
        (ChatCompletion, "serialization"),
        (TextCompletion, "serialization"),
        (ModelList, "serialization"),
        (ModelCard, "serialization"),
        (ErrorBody, "serialization"),
    ]
    _, definitions = models_json_schema(kinds, ref_template="#/components/schemas/{model}")
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "aha", "version": __version__},
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
        "paths": {
            "/v1/models": {"get": {"operationId": "models", "responses": _responses(ModelList)}},
            "/v1/models/{model}": {
                "get": {"operationId": "model", "parameters": [name], "responses": _responses(ModelCard)}
            },
            "/v1/chat/completions": {
                "post": {
                    "operationId": "chat",
                    "requestBody": _body(ChatRequest),
                    "responses": _responses(ChatCompletion, streams=True),
                }
            },
            "/v1/completions": {
                "post": {
                    "operationId": "completion",
                    "requestBody": _body(CompletionRequest),
                    "responses": _responses(TextCompletion, streams=True),
                }
            },
            "/health": {
                "get": {
                    "operationId": "health",
                    "security": [],
                    "responses": {"200": {"description": "ready", "content": {"application/json": {}}}, **_refusals()},
                }
            },
        },
    }


def _reference(model: type[BaseModel]) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}


def _body(model: type[BaseModel]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": _reference(model)}}


def _responses(model: type[BaseModel], streams: bool = False) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": _reference(model)}
    if streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return {"200": {"description": "the answer", "content": content}, **_refusals()}


def _refusals() -> dict[str, Any]:
    content = {"application/json": _reference(ErrorBody)}
    return {status: {"description": "refused", "content": content} for status in REFUSALS}
