"""Shared by AWS targets: clients with errors that name the missing permission, and the account's registry."""
