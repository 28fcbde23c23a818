"""Whose API a base URL belongs to."""

import pytest

from app.upstream.hosts import is_openai


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("https://api.openai.com/v1", True),
        ("https://API.OpenAI.com:443/v1/", True),
        ("https://eu.api.openai.com/v1", True),
        ("https://api.openai.com.example.org/v1", False),
        ("https://notapi.openai.com/v1", False),
        ("https://example.org/api.openai.com/v1", False),
        ("https://resource.openai.azure.com/openai/v1", False),
        ("http://127.0.0.1:8003/v1", False),
    ],
)
def test_openais_hosts_are_its_own_and_their_regions(base_url: str, expected: bool) -> None:
    assert is_openai(base_url) is expected
