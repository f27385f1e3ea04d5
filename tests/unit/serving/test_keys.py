"""Every path with every method: without a key, only probes and empty pages answer."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.anyio

OPEN = ("/", "/livez", "/readyz", "/health", "/ping", "/docs", "/docs/swagger-ui.css", "/v2/health/live")
PATHS = (
    *(
        "/predict",
        "/predict/",
        "/PREDICT",
        "/invocations",
        "/v1/models",
        "/v1/models/numbers:predict",
        "/feedback",
        "/model",
        "/models",
        "/metrics",
    ),
    *("/v2", "/v2/", "/v2/models/numbers", "/v2/models/numbers/infer", "/v2/models/other/infer"),
    *("/v2/repository/index", "/openapi.json", "/nothing"),
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO")
WRONG = (
    {},
    {"x-api-key": ""},
    {"x-api-key": "wrong"},
    {"x-api-key": "good,good"},
    {"authorization": "Bearer"},
    {"authorization": "Bearer wrong"},
    {"authorization": "Basic good"},
    {"authorization": "good"},
    {"x-api-key": "wrong", "authorization": "Bearer good"},
)


async def test_without_a_key_no_path_answers_by_any_method(numbers, serve):
    async with serve(*numbers, api_keys=["good"]) as client:
        for path in PATHS:
            for method in METHODS:
                for headers in WRONG:
                    answer = await client.request(method, path, headers=headers, content=b"[[1, 2]]")
                    assert answer.status_code == 401, (method, path, headers, answer.status_code)
                    assert b"predictions" not in answer.content


@pytest.mark.parametrize("headers", [{"x-api-key": "good"}, {"authorization": "Bearer good"}])
async def test_with_a_key_each_path_answers(numbers, serve, headers):
    async with serve(*numbers, api_keys=["good", "other"]) as client:
        for path in PATHS:
            for method in METHODS:
                answer = await client.request(method, path, headers=headers, content=b"[[1, 2]]")
                has_no_place = path == "/feedback" and answer.status_code == 503  # of a model that is not stored
                expected = (200, 307, 400, 404, 405, 422)
                assert has_no_place or answer.status_code in expected, (method, path, answer.status_code)


async def test_what_is_open_is_so_without_a_key(numbers, serve):
    async with serve(*numbers, api_keys=["good"]) as client:
        for path in sorted(OPEN):
            answer = await client.get(path)
            assert answer.status_code == 200, path
            assert "numbers" not in answer.text or path in ("/readyz", "/health")
