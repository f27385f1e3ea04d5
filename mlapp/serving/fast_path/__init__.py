"""Prediction requests that skip the ASGI stack."""
