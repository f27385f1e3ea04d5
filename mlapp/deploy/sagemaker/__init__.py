"""The Amazon SageMaker target: an endpoint with weighted variants for the live release and its canary."""

from mlapp.deploy.sagemaker.settings import SageMakerSettings
from mlapp.deploy.sagemaker.target import SageMakerTarget

__all__ = ["SageMakerSettings", "SageMakerTarget"]
