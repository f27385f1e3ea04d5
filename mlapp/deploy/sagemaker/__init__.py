"""The Amazon SageMaker target: an endpoint whose weighted variants are the live release and its canary."""

from mlapp.deploy.sagemaker.settings import SageMakerSettings
from mlapp.deploy.sagemaker.target import SageMakerTarget

__all__ = ["SageMakerSettings", "SageMakerTarget"]
