"""The target `lambda`: a function on AWS Lambda. A published version is a release, and the alias `live` answers."""

from mlapp.deploy.aws_lambda.target import LambdaTarget

__all__ = ["LambdaTarget"]
