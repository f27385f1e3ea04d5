"""Describes the server in OpenAPI 3.1: a module for the document, and one for each protocol."""

from mlapp.serving.openapi.specification import make_openapi_document

__all__ = ["make_openapi_document"]
