"""The HTTP server of a model: codec → batcher → predictor, and what operating it needs."""

from mlapp.serving.asgi import Application, create_asgi

__all__ = ["Application", "create_asgi"]
