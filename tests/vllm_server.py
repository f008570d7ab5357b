"""An OpenAI-compatible `/v1/completions` over a bundle's model, as strict as vLLM's documentation. Not a test itself.

Arguments: a bundle, a file for the request bodies, `raw_logprobs` or `processed_logprobs`, the most logprobs. Honours
`allowed_token_ids`, `logprobs`, `return_tokens_as_token_ids`, `structured_outputs.regex`, `stop_token_ids`, several
prompts of token ids, and streaming; refuses any field that vLLM does not document. Its own code shares nothing with the
client's: masks are made from the request alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

import regex
import torch

FIELDS = {
    "model", "prompt", "max_tokens", "temperature", "top_p", "repetition_penalty", "seed", "stream", "logprobs",
    "allowed_token_ids", "structured_outputs", "stop_token_ids", "skip_special_tokens",
    "spaces_between_special_tokens", "return_tokens_as_token_ids",
}  # fmt: skip
LOCK = Lock()


class Refused(Exception):
    """A request that vLLM answers with 400."""


class Model:
    """The bundle's weights and its exported tokenizer."""

    def __init__(self, bundle_dir: str, mode: str, most: int) -> None:
        from tokenizers import Tokenizer

        from gcrs.toolkit.model.bundle import Bundle, load_merged

        bundle = Bundle.load(bundle_dir)
        self.model: Any = load_merged(bundle, torch.float32)
        self.tokenizer = Tokenizer.from_str(bundle.tokens.extended_json())
        self.mode, self.most = mode, most
        self.shown = [self.tokenizer.decode([n], skip_special_tokens=False) for n in range(bundle.tokens.size)]

    def check(self, body: dict[str, Any]) -> list[list[int]]:
        """The prompts; Refused for what vLLM refuses."""
        if unknown := set(body) - FIELDS:
            raise Refused(f"Extra inputs are not permitted: {sorted(unknown)}")
        if (body.get("logprobs") or 0) > self.most >= 0:
            raise Refused(
                f"Requested sample logprobs of {body['logprobs']}, which is greater than max allowed: {self.most}"
            )
        if "allowed_token_ids" in body and not body["allowed_token_ids"]:
            raise Refused("allowed_token_ids is not None and empty!")
        if body.get("temperature", 1) < 0 or body.get("max_tokens", 16) < 1:
            raise Refused("temperature and max_tokens are out of range")
        prompt = body["prompt"]
        return [prompt] if isinstance(prompt[0], int) else prompt

    def steps(self, prompt: list[int], body: dict[str, Any]) -> Iterator[tuple[int, list[tuple[int, float]]]]:
        """Generated ids, each with its most probable logprobs."""
        ids, text = list(prompt), ""
        rng = torch.Generator().manual_seed(body.get("seed") or 0)
        pattern = (body.get("structured_outputs") or {}).get("regex")
        wanted = regex.compile(pattern) if pattern else None
        ends = set(body.get("stop_token_ids") or ())
        for _ in range(body.get("max_tokens", 16)):
            with torch.inference_mode():
                raw = self.model(torch.tensor([ids])).logits[0, -1].float()
            legal = torch.ones(len(raw), dtype=torch.bool)
            if (allowed := body.get("allowed_token_ids")) is not None:
                legal &= torch.zeros_like(legal).index_fill(0, torch.tensor(allowed), True)
            if wanted is not None:
                for token, shown in enumerate(self.shown):
                    if token in ends:
                        legal[token] = wanted.fullmatch(text) is not None
                    elif not shown or "�" in shown or wanted.fullmatch(text + shown, partial=True) is None:
                        legal[token] = False
            masked = raw.masked_fill(~legal, -torch.inf)
            heat = body.get("temperature", 1.0)
            token = (
                int(masked.argmax())
                if heat == 0
                else int(torch.multinomial((masked / heat).softmax(-1), 1, generator=rng))
            )
            told = (masked if self.mode == "processed_logprobs" else raw).log_softmax(-1)
            best = told.topk(min(body.get("logprobs") or 1, len(told)))
            top = {int(n): float(v) for v, n in zip(*best, strict=True) if v > -torch.inf} | {token: float(told[token])}
            yield token, list(top.items())
            if token in ends:
                return
            ids.append(token)
            text += self.shown[token]


def main() -> None:
    bundle, record, mode, most = sys.argv[1:5]
    model = Model(bundle, mode, int(most))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def answer(self, status: int, body: Any) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self.answer(200, {"object": "list", "data": [{"id": "exported", "object": "model"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with LOCK, open(record, "a", encoding="utf-8") as file:
                file.write(json.dumps(body) + "\n")
            try:
                prompts = model.check(body)
            except Refused as error:
                self.answer(400, {"error": {"message": str(error), "type": "BadRequestError", "code": 400}})
                return
            if body.get("stream"):
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("connection", "close")
                self.end_headers()
                ends = set(body.get("stop_token_ids") or ())
                for token, _ in model.steps(prompts[0], body):
                    text = "" if token in ends else model.shown[token]
                    chunk = {"choices": [{"index": 0, "text": text, "finish_reason": None}]}
                    self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
                self.wfile.write(b"data: [DONE]\n\n")
                self.close_connection = True
                return
            choices = []
            for n, prompt in enumerate(prompts):
                steps = list(model.steps(prompt, body))
                top = [{f"token_id:{token}": value for token, value in told} for _, told in steps]
                choices.append({"index": n, "text": "", "finish_reason": "length", "logprobs": {"top_logprobs": top}})
            self.answer(200, {"object": "text_completion", "choices": choices})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
