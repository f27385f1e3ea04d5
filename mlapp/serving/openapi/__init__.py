"""The server in OpenAPI 3.1: a module for the document, and one for what each protocol answers."""

from mlapp.serving.openapi.specification import make_document

__all__ = ["make_document"]
