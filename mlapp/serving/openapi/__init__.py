"""Describes the server in OpenAPI 3.1: one module for the whole document, and one for the paths of each protocol."""

from mlapp.serving.openapi.specification import make_openapi_document

__all__ = ["make_openapi_document"]
