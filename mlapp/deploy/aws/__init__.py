"""Shared by AWS targets: clients whose errors name missing permissions, IAM documents, logs, and the registry."""
