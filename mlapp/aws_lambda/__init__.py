"""A version as an AWS Lambda function: `python -m mlapp.aws_lambda` answers the events of Lambda's Runtime API.

Modules from low to high level: `runtime_api` and `limits`, `http_events` and `stored_events`, `model_function`, `loop`.
"""
