"""The served OpenAPI under attack by schemathesis: whatever is sent, the server never fails and answers as it says."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import httpx
import pytest

from serving_helpers import Served

schemathesis = pytest.importorskip("schemathesis")

CASES = 5  # requests for each route


def test_nothing_that_is_sent_makes_the_server_fail(served: Served) -> None:
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.errors import Unsatisfiable
    from schemathesis.checks import not_a_server_error
    from schemathesis.generation import GenerationMode
    from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance
    from schemathesis.specs.openapi.checks import status_code_conformance as statuses

    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    seen: dict[int, int] = {}
    checks = [not_a_server_error, statuses, content_type_conformance, response_schema_conformance]
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            strategy = operation.as_strategy(generation_mode=mode)

            @settings(
                max_examples=CASES,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=strategy)
            def attack(case: Any) -> None:
                reply = case.call(timeout=60)
                seen[reply.status_code] = seen.get(reply.status_code, 0) + 1
                case.validate_response(reply, checks=checks)

            with suppress(Unsatisfiable):  # nothing can be wrong about a route without arguments
                attack()
    assert sum(seen.values()) > 40 and max(seen) < 500, seen
    assert httpx.get(f"{served.url}/health").json()["running"] == 0
