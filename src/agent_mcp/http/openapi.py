"""The OpenAPI document: as FastAPI makes it, with refusals in the form in which they are sent."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from agent_mcp.http.problems import MEDIA_TYPE

_UNUSED = ("HTTPValidationError", "ValidationError")
"""Schemas of the framework's own refusals, none of which is ever sent."""


class DescribedApi(FastAPI):
    """FastAPI, which writes all answers of a route down as that route's own media type."""

    def openapi(self) -> dict[str, Any]:
        """The document; made once."""
        if self.openapi_schema is None:
            document = super().openapi()
            for path in document["paths"].values():
                for operation in path.values():
                    for status, answer in operation["responses"].items():
                        content: dict[str, Any] = answer.get("content", {})
                        if status >= "400" and "application/json" in content:
                            content[MEDIA_TYPE] = content.pop("application/json")
            for name in _UNUSED:
                document["components"]["schemas"].pop(name, None)
            self.openapi_schema = document
        return self.openapi_schema
