"""A version as an AWS Lambda function: `python -m mlapp.aws_lambda` answers the events of Lambda's Runtime API.

From what changes least to what changes most: `runtime_api` and `limits`, `http_events` and `stored_events`,
`model_function`, `loop`.
"""
