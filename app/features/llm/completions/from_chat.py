"""Chat responses translated into one text completion."""

import time
import uuid
from codecs import getincrementaldecoder
from collections import defaultdict
from collections.abc import Iterable, Sequence

from app.features.llm.completions.to_chat import Prompt, only_echoes
from app.features.llm.from_openai.openai_chunks import LogprobEntry
from app.features.llm.schema import (
    ChatCompletionResponse,
    Choice,
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
    CompletionResponse,
    JSONObject,
    Usage,
)
from app.upstream.sse import encode_events


class CompletionTranslator:
    """Translates the chat responses for one request's prompts into vLLM's text completion."""

    def __init__(self, request: CompletionRequest, model: str, prompts: Sequence[Prompt]) -> None:
        self._request = request
        self._prompts = prompts
        self._head: JSONObject = {
            "id": f"cmpl-{request.request_id or uuid.uuid4().hex[:16]}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
        }
        self._started_choices: set[int] = set()
        self._logprobs: defaultdict[int, _LegacyLogprobs] = defaultdict(_LegacyLogprobs)
        self._usages: list[Usage] = []
        self._fingerprint: str | None = None

    def response(self, chats: Sequence[ChatCompletionResponse]) -> CompletionResponse:
        """Return the whole response, from one chat response for each prompt, in order. Usage is summed."""
        return CompletionResponse(
            **self._head,
            choices=[self._choice(number, choice) for number, chat in enumerate(chats) for choice in chat.choices],
            service_tier=chats[0].service_tier,
            system_fingerprint=chats[0].system_fingerprint,
            usage=sum_usage([chat.usage for chat in chats]),
        )

    def echoes(self) -> CompletionResponse:
        """Return the response that is only an echo: the prompts, made without a call to OpenAI."""
        tokens = sum(len(prompt.ids or ()) for prompt in self._prompts)
        indexes = range(len(self._prompts) * self._request.n)
        return CompletionResponse(
            **self._head,
            choices=[self._echo_choice(index, self._prompts[index // self._request.n]) for index in indexes],
            usage=Usage(prompt_tokens=tokens, total_tokens=tokens),
        )

    def events(self, number: int, chunks: Iterable[JSONObject]) -> bytes:
        """Encode chunks of the chat for prompt `number` as events of the text completion."""
        return encode_events([event for chunk in chunks for event in self._translate(number, chunk)])

    def _translate(self, number: int, chunk: JSONObject) -> list[JSONObject]:
        self._fingerprint = chunk.get("system_fingerprint") or self._fingerprint
        if not chunk["choices"]:
            self._usages.append(Usage(**chunk["usage"]))
        return [event for choice in chunk["choices"] for event in self._choice_chunks(number, choice, chunk)]

    def trailer(self) -> bytes:
        """Encode what follows the last chat: the prompts if they are the whole response, and the usage if requested."""
        chunks = self._echo_chunks() if only_echoes(self._request) else []
        options = self._request.stream_options
        if options and options.include_usage:
            usage = sum_usage(self._usages).model_dump(exclude_none=True)
            chunks.append({**self._head, "choices": [], "usage": usage, "system_fingerprint": self._fingerprint})
        return encode_events(chunks)

    def _echo_chunks(self) -> list[JSONObject]:
        echoes = self.echoes()
        self._usages.append(echoes.usage)
        return [
            self._chunk(choice.index, self._prompts[choice.index // self._request.n], choice.model_dump(), {})
            for choice in echoes.choices
        ]

    def _choice(self, number: int, choice: Choice) -> CompletionChoice:
        tokens = choice.logprobs.model_dump()["content"] if choice.logprobs else None
        prompt = self._prompts[number]
        return CompletionChoice(
            index=number * self._request.n + choice.index,
            text=self._echo_prefix(prompt) + (choice.message.content or choice.message.refusal or ""),
            logprobs=CompletionLogprobs(**_LegacyLogprobs().convert(tokens)) if tokens is not None else None,
            finish_reason=choice.finish_reason,
            stop_reason=choice.stop_reason,
            token_ids=choice.token_ids,
            prompt_token_ids=self._shown_ids(prompt),
        )

    def _echo_choice(self, index: int, prompt: Prompt) -> CompletionChoice:
        shown = self._shown_ids(prompt)
        return CompletionChoice(index=index, text=prompt.text, finish_reason="length", prompt_token_ids=shown)

    def _echo_prefix(self, prompt: Prompt) -> str:
        # vLLM echoes the prompt either as text or as ids.
        return prompt.text if self._request.echo and not self._request.return_token_ids else ""

    def _shown_ids(self, prompt: Prompt) -> list[int] | None:
        return list(prompt.ids or ()) if self._request.return_token_ids else None

    def _choice_chunks(self, number: int, choice: JSONObject, chunk: JSONObject) -> list[JSONObject]:
        index, delta, prompt = number * self._request.n + choice["index"], choice["delta"], self._prompts[number]
        if "role" in delta:
            # A text completion has no role chunk; an echo takes its place.
            prefix = self._echo_prefix(prompt)
            return [self._chunk(index, prompt, {"text": prefix}, {})] if prefix else []
        tokens = (choice.get("logprobs") or {}).get("content")
        content = {
            "text": delta.get("content") or delta.get("refusal") or "",
            "logprobs": self._logprobs[index].convert(tokens) if tokens else None,
            "finish_reason": choice.get("finish_reason"),
            "stop_reason": choice.get("stop_reason"),
            "token_ids": choice.get("token_ids"),
        }
        return [self._chunk(index, prompt, content, chunk)]

    def _chunk(self, index: int, prompt: Prompt, content: JSONObject, chat_chunk: JSONObject) -> JSONObject:
        first = index not in self._started_choices
        self._started_choices.add(index)
        choice = {
            "index": index,
            "text": content["text"],
            "logprobs": content.get("logprobs"),
            "finish_reason": content.get("finish_reason"),
            "stop_reason": content.get("stop_reason"),
            "prompt_token_ids": self._shown_ids(prompt) if first else None,
            "token_ids": content.get("token_ids"),
            "weight_versions": None,
        }
        chunk = {**self._head, "choices": [choice]}
        if "system_fingerprint" in chat_chunk:
            chunk["system_fingerprint"] = chat_chunk["system_fingerprint"]
        if "usage" in chat_chunk:
            usage = chat_chunk["usage"]
            chunk["usage"] = {name: usage[name] for name in ("prompt_tokens", "total_tokens", "completion_tokens")}
        chunk["kv_transfer_params"] = None
        return chunk


def sum_usage(usages: Sequence[Usage | None]) -> Usage:
    """Return the total usage of several calls; a single call keeps its details."""
    known = [usage for usage in usages if usage]
    if len(known) == 1:
        return known[0]
    total = Usage()
    for usage in known:
        total.prompt_tokens += usage.prompt_tokens
        total.completion_tokens += usage.completion_tokens
        total.total_tokens += usage.total_tokens
    return total


class _LegacyLogprobs:
    """Converts the log probabilities of one choice to OpenAI's legacy format, whose offsets run through the text."""

    def __init__(self) -> None:
        self._offset = 0
        self._characters = getincrementaldecoder("utf-8")("replace")

    def convert(self, tokens: Iterable[LogprobEntry]) -> JSONObject:
        """Convert the next tokens, entries of a chat's `logprobs.content`."""
        table: JSONObject = {"text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": []}
        for token in tokens:
            candidates = {candidate["token"]: candidate["logprob"] for candidate in token["top_logprobs"]}
            table["text_offset"].append(self._offset)
            table["token_logprobs"].append(token["logprob"])
            table["tokens"].append(token["token"])
            # The chosen token is included even if it is not among the likeliest.
            table["top_logprobs"].append({token["token"]: token["logprob"], **candidates})
            self._offset += self._length(token)
        return table

    def _length(self, token: LogprobEntry) -> int:
        raw = token["bytes"]
        return len(token["token"] if raw is None else self._characters.decode(bytes(raw)))
