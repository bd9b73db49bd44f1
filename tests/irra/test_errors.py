"""What messages show of an address."""

import pytest

from irra.utils.errors import without_password


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:word@host:5000/x", "http://host:5000/x"),
        ("http://me:wo/rd@host:5000/x", "http://host:5000/x"),
        ("http://me:w@r?d#@host/x", "http://host/x"),
        ("'http://me:w'd@host' failed", "'http://host' failed"),
        ("https://host/x?token=word&part=2 failed", "https://host/x?token=***&part=*** failed"),
        ("https://host/x#token=word", "https://host/x#token=***"),
        ("http://me:word@[::1]:5000, s3://bucket/raw", "http://[::1]:5000, s3://bucket/raw"),
        ("postgresql+psycopg2://me:word@host/base", "postgresql+psycopg2://host/base"),
        ("sqlite:////folder/mlflow.db", "sqlite:////folder/mlflow.db"),
    ],
)
def test_credentials_in_an_address_are_not_shown(text: str, shown: str) -> None:
    assert without_password(text) == shown
