"""Shared by targets on AWS: clients whose errors name the missing right, and the account's registry."""
