"""`gcrs serve --http` as a process: the tools as REST, sessions, OpenAI's format, metrics, OpenAPI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from gcrs.cli import main
from gcrs.programs.serving.declared import TOOLS
from serving_helpers import Served, events, serving_here
from toys import toy_catalog

SCI_FI = {item.id for item in toy_catalog() if "sci-fi" in item.facts["genre"]}  # type: ignore[operator]


def test_health_says_what_answers(served: Served) -> None:
    told = served.get("/health").json()
    assert told["status"] == "ok" and len(told["bundle"]) == 64 and told["catalog_version"] >= 0


def test_recommend_keeps_to_rules_and_exclusions(served: Served) -> None:
    body = {"dialogue": "I loved The Matrix", "k": 10, "where": ["genre=sci-fi"], "exclude": ["m01"]}
    told = served.post("/tools/recommend", body).json()
    assert {item["id"] for item in told["items"]} == SCI_FI - {"m01", "m03"}
    assert told["recommended"] == [told["items"][0]["id"]] and told["intent"] == "recommend" and told["forced"]
    assert [item["score"] for item in told["items"]] == sorted((i["score"] for i in told["items"]), reverse=True)
    assert any("allowed of 12 items" in line for line in told["reasons"])
    again = served.post("/tools/recommend", body).json()
    assert (again["reply"], again["recommended"]) == (told["reply"], told["recommended"])


def test_a_dialogue_of_turns_and_ids_that_are_not_there(served: Served) -> None:
    turns = [
        {"role": "user", "content": "I liked <item:m09> and <item:zzz>"},
        {"role": "assistant", "content": "And Fargo (1996)?"},
        {"role": "user", "content": "Seen it"},
    ]
    told = served.post("/tools/recommend", {"dialogue": turns, "intent": "recommend", "k": 12}).json()
    assert told["unknown_ids"] == ["zzz"]
    assert {item["id"] for item in told["items"]} == {item.id for item in toy_catalog()} - {"m08", "m09"}
    assert [link["id"] for link in told["links"]] == [] and told["unclear"] == []
    linked = served.post("/tools/recommend", {"dialogue": "I loved The Matrix"}).json()["links"]
    assert [(link["words"], link["id"]) for link in linked] == [("The Matrix", "m03")]
    talk = served.post("/tools/recommend", {"dialogue": turns, "intent": "chat"}).json()
    assert talk["items"] == [] and talk["recommended"] == [] and talk["intent"] == "chat"


def test_a_session_with_nothing_left_says_so(served: Served) -> None:
    session = served.post("/sessions", {"where": ["title='The Matrix'"]}).json()["session"]
    first = served.post(f"/sessions/{session}/messages", {"text": "One, please", "intent": "recommend"}).json()
    assert first["recommended"] == ["m03"] and not first["nothing_left"]
    second = served.post(f"/sessions/{session}/messages", {"text": "Another one"}).json()
    assert second["intent"] == "chat" and second["forced"] and second["nothing_left"]
    forced = served.post(f"/sessions/{session}/messages", {"text": "hello", "intent": "chat"}).json()
    assert forced["intent"] == "chat" and not forced["nothing_left"]


def test_search_looks_at_titles_first_then_facts_then_spelling(served: Served) -> None:
    def found(**body: Any) -> list[str]:
        return [item["id"] for item in served.post("/tools/search_catalog", body).json()["items"]]

    assert found(query="alien") == ["m01", "m02"]
    assert found(query="crime", where=["year>1995"]) == ["m07", "m08"]
    assert found(query="amelie") == ["m11"] and found(query="Galaxi Quest") == ["m05"] and found(query="zzzz") == []
    page = served.post("/tools/search_catalog", {"limit": 5, "offset": 10}).json()
    assert len(page["items"]) == 2 and page["total"] == 12


def test_lookup_gives_the_facts(served: Served) -> None:
    told = served.post("/tools/lookup_item", {"id": "m11"}).json()
    assert told["title"] == "Amélie (2001)" and told["facts"] == {"year": 2001, "genre": ["comedy", "romance"]}
    assert told["admitted"] and not told["retired"]


def test_explain_scores_again_without_each_mention(served: Served) -> None:
    turns = [{"role": "user", "content": "I loved <item:m03> and Heat (1995)"}]
    told = served.post("/tools/explain", {"item": "Aliens", "dialogue": turns}).json()
    assert told["item"]["id"] == "m02" and told["place"] >= 1 and told["allowed"] == 10 and told["barred"] is None
    assert {one["id"] for one in told["mentions"]} == {"m03", "m09"}
    for one in told["mentions"]:
        other = "m09" if one["id"] == "m03" else "m03"
        left = [{"role": "user", "content": f"I loved {'it and' if one['id'] == 'm03' else '<item:m03> and'} "}]
        left[0]["content"] += "it" if one["id"] == "m09" else f"<item:{other}>"
        alone = served.post("/tools/explain", {"item": "m02", "dialogue": left}).json()
        assert alone["score"] == pytest.approx(one["score_without"], abs=1e-4)
        assert one["change"] == pytest.approx(told["score"] - one["score_without"], abs=1e-4)
    assert ["genre: action, sci-fi"] in [one["facts"] for one in told["shared"]]
    assert len(told["runners_up"]) == 9 and "m02" not in {one["id"] for one in told["runners_up"]}
    barred = served.post("/tools/explain", {"item": "m03", "dialogue": turns, "where": ["year<1990"]}).json()
    assert barred["place"] is None and "does not satisfy year<1990" in barred["barred"]


def test_a_session_remembers_streams_and_ends(served: Served) -> None:
    begun = served.post("/sessions", {"where": ["genre=sci-fi"], "seed": 5})
    assert begun.status_code == 201
    session = begun.json()["session"]
    path = f"/sessions/{session}/messages"
    first = served.post(path, {"text": "I loved The Matrix", "intent": "recommend"}).json()
    assert first["number"] == 1 and first["links"] == [
        {"words": "The Matrix", "id": "m03", "title": "The Matrix (1999)"}
    ]
    assert first["recommended"][0] in SCI_FI - {"m03"}
    body = {"text": "Another one", "intent": "recommend", "stream": True}
    with httpx.stream("POST", served.url + path, json=body, timeout=60) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        told = list(events(reply))
    assert [name for name, _ in told[:-1]] == ["piece"] * (len(told) - 1) and told[-1][0] == "done"
    done = told[-1][1]
    assert "".join(piece["text"] for _, piece in told[:-1]).strip() == done["reply"]
    assert done["recommended"][0] in SCI_FI - {"m03", *first["recommended"]}
    state = served.get(f"/sessions/{session}").json()
    assert [turn["content"] for turn in state["turns"][::2]] == ["I loved The Matrix", "Another one"]
    assert state["given"] == [*first["recommended"], *done["recommended"]] and state["seed"] == 5
    marked = served.post(f"/sessions/{session}/feedback", {"item": "m05", "value": "disliked"}).json()
    assert marked["feedback"] == {"m05": "disliked"}
    lines = served.get(f"/sessions/{session}/why").json()["lines"]
    assert any("allowed of 12 items" in line for line in lines)
    assert httpx.delete(f"{served.url}/sessions/{session}").status_code == 204
    assert served.get(f"/sessions/{session}").json()["error"]["code"] == "unknown_session"


def test_openais_own_client_talks_to_it(served: Served) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["gcrs"]
    messages: Any = [
        {"role": "system", "content": "You are a pirate."},
        {"role": "user", "content": [{"type": "text", "text": "I loved The Matrix"}]},
    ]
    asked: dict[str, Any] = {"model": "gcrs", "messages": messages, "seed": 3, "max_tokens": 12}
    beside = {"gcrs": {"intent": "recommend", "k": 3, "where": ["genre=sci-fi"]}}
    whole = client.chat.completions.create(**asked, extra_body=beside)
    told = whole.model_dump()
    assert whole.choices[0].message.content and told["gcrs"]["ignored"] == ["messages[0]"]
    assert {item["id"] for item in told["gcrs"]["items"]} < SCI_FI - {"m03"} and len(told["gcrs"]["items"]) == 3
    assert whole.usage.completion_tokens <= 40 and whole.usage.prompt_tokens > 5
    chunks = list(
        client.chat.completions.create(**asked, extra_body=beside, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.strip() == whole.choices[0].message.content and chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    with pytest.raises(openai.NotFoundError) as wrong:
        client.chat.completions.create(model="gpt-9", messages=messages)
    assert wrong.value.body["param"] == "model" and "called 'gcrs'" in wrong.value.body["remedy"]
    short = client.chat.completions.create(**asked | {"max_tokens": 1}, extra_body=beside)
    ends = {short.choices[0].finish_reason, whole.choices[0].finish_reason}
    assert ends <= {"stop", "length"} and short.choices[0].finish_reason == "length"
    for name, value in (("n", 2), ("stop", ["x"]), ("tools", [{"type": "function", "function": {"name": "f"}}])):
        with pytest.raises(openai.APIStatusError) as refused:
            client.chat.completions.create(**asked, **{name: value})
        assert refused.value.status_code == 422 and refused.value.body["param"] == name


def test_openais_client_does_not_ask_again_for_what_no_item_satisfies(served: Served) -> None:
    openai = pytest.importorskip("openai")
    sent = list[str]()
    counting = httpx.Client(event_hooks={"request": [lambda request: sent.append(request.url.path)]})
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", http_client=counting)
    messages: Any = [{"role": "user", "content": "Hello"}]
    with pytest.raises(openai.ConflictError):
        client.chat.completions.create(
            model="gcrs", messages=messages, extra_body={"gcrs": {"where": ["year>3000"], "intent": "recommend"}}
        )
    assert sent == ["/v1/chat/completions"]


def test_what_another_process_retires_is_gone_at_the_next_request(served: Served, toy_bundle: Path) -> None:
    def ranked() -> tuple[set[str], int]:
        told = served.post("/tools/recommend", {"dialogue": "Hello", "k": 12}).json()
        return {item["id"] for item in told["items"]}, told["catalog_version"]

    session = served.post("/sessions").json()["session"]
    before, version = ranked()
    assert main(["catalog", "retire", "m12", "--bundle", str(toy_bundle)]) == 0
    try:
        assert ranked() == (before - {"m12"}, version + 1)
        said = served.post(f"/sessions/{session}/messages", {"text": "More", "intent": "recommend"}).json()
        assert "m12" not in {item["id"] for item in said["items"]}
        assert served.post("/tools/lookup_item", {"id": "m12"}).json()["retired"]
    finally:
        assert main(["catalog", "restore", "m12", "--bundle", str(toy_bundle)]) == 0
    assert ranked() == (before, version + 2)


def test_metrics_count_by_route(served: Served) -> None:
    served.get("/health")
    text = served.get("/metrics").text
    assert 'gcrs_requests_total{route="/health",status="200"}' in text
    assert "gcrs_titles_withheld_total" in text and "gcrs_tokens_forwarded" in text


def test_functions_are_strict_and_name_every_argument(served: Served) -> None:
    told = served.get("/functions").json()
    assert [one["function"]["name"] for one in told] == list(TOOLS)

    def check(schema: Any) -> None:
        if isinstance(schema, list):
            for one in schema:
                check(one)
        elif isinstance(schema, dict):
            assert "default" not in schema and "$ref" not in schema
            if schema.get("type") == "object":
                assert schema["additionalProperties"] is False
                assert schema["required"] == list(schema["properties"])
            for one in schema.values():
                check(one)

    for one in told:
        assert one["function"]["strict"] is True
        check(one["function"]["parameters"])
    arguments = {name: None for name in told[0]["function"]["parameters"]["required"]} | {"dialogue": "A comedy"}
    assert len(served.post("/tools/recommend", arguments).json()["items"]) == 10


def test_the_schema_is_the_same_on_every_face(served: Served) -> None:
    spec = served.get("/openapi.json").json()
    for name, tool in TOOLS.items():
        post = spec["paths"][f"/tools/{name}"]["post"]
        assert post["description"] == tool.description
        ref = post["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        told = spec["components"]["schemas"][ref.rsplit("/", 1)[1]]["properties"]
        assert list(told) == list(tool.arguments.model_fields)


def test_sessions_come_back_after_a_restart_and_the_oldest_leave_first(tmp_path: Path) -> None:
    options: dict[str, Any] = {"session_dir": tmp_path, "sessions": 2}
    with serving_here(**options) as first:
        names = [first.post("/sessions", {"seed": n}).json()["session"] for n in range(3)]
        said = first.post(f"/sessions/{names[2]}/messages", {"text": "I like Alien", "intent": "recommend"}).json()
        assert first.get("/health").json()["sessions"] == 2
        assert first.get(f"/sessions/{names[0]}").json()["seed"] == 0  # from its file
        assert "gcrs_sessions_evicted 2.0" in first.get("/metrics").text
    with serving_here(**options) as again:
        state = again.get(f"/sessions/{names[2]}").json()
        assert state["given"] == said["recommended"] and state["turns"][1]["content"] == said["reply"]
        more = again.post(f"/sessions/{names[2]}/messages", {"text": "More", "intent": "recommend"}).json()
        assert more["number"] == 2 and more["recommended"] != said["recommended"]
        (tmp_path / f"{names[1]}.json").write_text("{}")
        broken = again.get(f"/sessions/{names[1]}")
        assert broken.status_code == 404 and "no gcrs session" in broken.json()["error"]["message"]
        assert again.get("/sessions/..%2f..%2fetc").status_code == 404
        httpx.delete(f"{again.url}/sessions/{names[2]}")
        assert not (tmp_path / f"{names[2]}.json").exists() and json.loads((tmp_path / f"{names[0]}.json").read_text())
