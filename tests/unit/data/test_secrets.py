"""Secrets: read from the environment, and never shown."""

import pytest

from mlapp.data.secrets import expand_secrets_in_address, redact_secrets
from mlapp.errors import DataError


def test_a_variable_is_filled_in_and_not_shown():
    address = expand_secrets_in_address("postgresql://me:${DB_PASSWORD}@db/shop", {"DB_PASSWORD": "p@ss/word"})
    assert address.value == "postgresql://me:p%40ss%2Fword@db/shop"
    assert str(address) == "postgresql://me:***@db/shop"
    assert "p@ss" not in repr(address)
    assert address.hide_secrets("no entry for me with p@ss/word or p%40ss%2Fword") == "no entry for me with *** or ***"


def test_a_whole_address_may_be_a_variable():
    address = expand_secrets_in_address("${DB_URL}", {"DB_URL": "postgresql://me:hunter2@db/shop?sslmode=require"})
    assert address.value.endswith("hunter2@db/shop?sslmode=require")
    assert str(address) == "postgresql://me:***@db/shop?sslmode=require"
    assert address.hide_secrets("hunter2 is wrong") == "*** is wrong"


def test_other_variables_keep_their_names():
    address = expand_secrets_in_address("s3://${BUCKET}/day=1/*.parquet", {"BUCKET": "sales-eu"})
    assert (address.value, str(address)) == ("s3://sales-eu/day=1/*.parquet", "s3://${BUCKET}/day=1/*.parquet")


def test_a_variable_that_is_not_set_is_named():
    for environ in ({}, {"DB_URL": ""}):
        with pytest.raises(DataError, match="needs the environment variable DB_URL") as raised:
            expand_secrets_in_address("${DB_URL}", environ)
        assert raised.value.todo == "Set it before the command: export DB_URL=…"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:pw@host", "redis://:***@host"),
        ("mongodb://me:pw@a,b/db?x=1", "mongodb://me:***@a,b/db?x=1"),
        ("mssql://host/db?user=me&password=pw&x=1", "mssql://host/db?user=me&password=***&x=1"),
        ("https://x.blob/c?sv=1&sig=abc%3D", "https://x.blob/c?sv=1&sig=***"),
        ("see postgresql://me:pw@db/x.", "see postgresql://me:***@db/x."),
        ("postgresql://me:not/encoded@at:all@db/x", "postgresql://me:***@db/x"),
        ("https://host:8080/path@v1", "https://host:8080/path@v1"),
        ("https://ghp_abc@host/x.git", "https://***@host/x.git"),
        ("postgresql://me@db/x", "postgresql://me@db/x"),
        ("host=h password=abc dbname=x", "host=h password=*** dbname=x"),
        ("password = 'a' user = 'me'", "password = '***' user = 'me'"),
        ("https://host/x?access_key=abc&x=1", "https://host/x?access_key=***&x=1"),
        ("https://host/x?AWSAccessKeyId=abc&x=1", "https://host/x?AWSAccessKeyId=***&x=1"),
        ("https://host/x#access_token=abc", "https://host/x#access_token=***"),
        ('{"api_key": "abc", "x": 1}', '{"api_key": "***", "x": 1}'),
        ("2 tokens are left; a secret is no design=x", "2 tokens are left; a secret is no design=x"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_passwords_and_tokens_are_redacted(text, shown):
    assert redact_secrets(text) == shown


def test_what_is_no_address_shows_nothing_of_the_variable():
    assert expand_secrets_in_address("${DB_URL}", {"DB_URL": "postgresql:/me:pw@db/x"}).display_name == "${DB_URL}"


def test_a_library_that_quotes_a_piece_of_a_password_does_not_tell_it():
    address = expand_secrets_in_address("${DB_URL}", {"DB_URL": "postgresql://me:s3cr/et@db/x"})
    assert address.hide_secrets('invalid integer value "s3cr" for port') == 'invalid integer value "***" for port'
