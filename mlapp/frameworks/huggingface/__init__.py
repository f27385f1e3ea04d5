"""Hugging Face: transformers models and pipelines of text, from local weights."""

from mlapp.frameworks.huggingface.adapter import HuggingFaceFramework

__all__ = ["HuggingFaceFramework"]
