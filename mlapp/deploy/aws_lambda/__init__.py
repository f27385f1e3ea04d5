"""The target `lambda`: a function on AWS Lambda. Each published version is a release; the alias `live` serves."""

from mlapp.deploy.aws_lambda.target import LambdaTarget

__all__ = ["LambdaTarget"]
