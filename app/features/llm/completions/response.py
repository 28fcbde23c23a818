"""Chat responses made into the text completion that they answer."""

import time
import uuid
from codecs import getincrementaldecoder
from collections import defaultdict
from collections.abc import Iterable, Sequence

from app.features.llm.completions.request import Prompt, only_echoes
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
    """Makes the answers to the chats of one request into vLLM's text completion."""

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
        """The whole answer, from those to the prompts in their order; usage is that of all together."""
        return CompletionResponse(
            **self._head,
            choices=[self._choice(number, choice) for number, chat in enumerate(chats) for choice in chat.choices],
            service_tier=chats[0].service_tier,
            system_fingerprint=chats[0].system_fingerprint,
            usage=sum_usage([chat.usage for chat in chats]),
        )

    def echoes(self) -> CompletionResponse:
        """The answer where nothing is to be written: the prompts themselves, which cost nothing."""
        tokens = sum(len(prompt.ids or ()) for prompt in self._prompts)
        indexes = range(len(self._prompts) * self._request.n)
        return CompletionResponse(
            **self._head,
            choices=[self._echo(index, self._prompts[index // self._request.n]) for index in indexes],
            usage=Usage(prompt_tokens=tokens, total_tokens=tokens),
        )

    def events(self, number: int, chunks: Iterable[JSONObject]) -> bytes:
        """What stands for chunks of the chat about prompt `number`: an event for each choice, or none."""
        return encode_events([made for chunk in chunks for made in self._chunks(number, chunk)])

    def _chunks(self, number: int, chunk: JSONObject) -> list[JSONObject]:
        self._fingerprint = chunk.get("system_fingerprint") or self._fingerprint
        if not chunk["choices"]:
            self._usages.append(Usage(**chunk["usage"]))
        return [made for choice in chunk["choices"] for made in self._streamed(number, choice, chunk)]

    def trailer(self) -> bytes:
        """What follows when all chats have ended: the usage, where it is shown; the prompts, if they were all."""
        chunks = self._echo_chunks() if only_echoes(self._request) else []
        options = self._request.stream_options
        if options and options.include_usage:
            usage = sum_usage(self._usages).model_dump(exclude_none=True)
            chunks.append({**self._head, "choices": [], "usage": usage, "system_fingerprint": self._fingerprint})
        return encode_events(chunks)

    def _echo_chunks(self) -> list[JSONObject]:
        echoes = self.echoes()
        self._usages.append(echoes.usage)
        return [{**self._head, "choices": [choice.model_dump(include=_STREAMED)]} for choice in echoes.choices]

    def _choice(self, number: int, choice: Choice) -> CompletionChoice:
        tokens = choice.logprobs.model_dump()["content"] if choice.logprobs else None
        prompt = self._prompts[number]
        return CompletionChoice(
            index=number * self._request.n + choice.index,
            text=self._echoed(prompt) + (choice.message.content or choice.message.refusal or ""),
            logprobs=CompletionLogprobs(**_LegacyLogprobs().of(tokens)) if tokens is not None else None,
            finish_reason=choice.finish_reason,
            stop_reason=choice.stop_reason,
            token_ids=choice.token_ids,
            prompt_token_ids=self._shown_ids(prompt),
        )

    def _echo(self, index: int, prompt: Prompt) -> CompletionChoice:
        shown = self._shown_ids(prompt)
        return CompletionChoice(index=index, text=prompt.text, finish_reason="length", prompt_token_ids=shown)

    def _echoed(self, prompt: Prompt) -> str:
        # vLLM repeats the prompt as text or as ids.
        return prompt.text if self._request.echo and not self._request.return_token_ids else ""

    def _shown_ids(self, prompt: Prompt) -> list[int] | None:
        return list(prompt.ids or ()) if self._request.return_token_ids else None

    def _streamed(self, number: int, choice: JSONObject, chunk: JSONObject) -> list[JSONObject]:
        index, delta, prompt = number * self._request.n + choice["index"], choice["delta"], self._prompts[number]
        if "role" in delta:
            # A text has no role; its choice begins with the prompt, if that is to be seen.
            echoed = self._echoed(prompt)
            return [self._chunk(index, prompt, {"text": echoed}, {})] if echoed else []
        tokens = (choice.get("logprobs") or {}).get("content")
        said = {
            "text": delta.get("content") or delta.get("refusal") or "",
            "logprobs": self._logprobs[index].of(tokens) if tokens else None,
            "finish_reason": choice.get("finish_reason"),
            "stop_reason": choice.get("stop_reason"),
            "token_ids": choice.get("token_ids"),
        }
        return [self._chunk(index, prompt, said, chunk)]

    def _chunk(self, index: int, prompt: Prompt, said: JSONObject, chat_chunk: JSONObject) -> JSONObject:
        first = index not in self._started_choices
        self._started_choices.add(index)
        choice = {
            "index": index,
            "text": said["text"],
            "logprobs": said.get("logprobs"),
            "finish_reason": said.get("finish_reason"),
            "stop_reason": said.get("stop_reason"),
            "prompt_token_ids": self._shown_ids(prompt) if first else None,
            "token_ids": said.get("token_ids"),
        }
        made = {**self._head, "choices": [choice]}
        if "system_fingerprint" in chat_chunk:
            made["system_fingerprint"] = chat_chunk["system_fingerprint"]
        if "usage" in chat_chunk:
            usage = chat_chunk["usage"]
            made["usage"] = {name: usage[name] for name in ("prompt_tokens", "total_tokens", "completion_tokens")}
        return made


# The keys of a choice in a stream.
_STREAMED = {"index", "text", "logprobs", "finish_reason", "stop_reason", "prompt_token_ids", "token_ids"}


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
    """The log probabilities of one choice's tokens in the form that chats no longer have."""

    def __init__(self) -> None:
        self._offset = 0
        self._characters = getincrementaldecoder("utf-8")("replace")

    def of(self, tokens: Iterable[LogprobEntry]) -> JSONObject:
        """Those of the next tokens, given as entries of a chat's `logprobs.content`."""
        table: JSONObject = {"text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": []}
        for token in tokens:
            rated = {candidate["token"]: candidate["logprob"] for candidate in token["top_logprobs"]}
            table["text_offset"].append(self._offset)
            table["token_logprobs"].append(token["logprob"])
            table["tokens"].append(token["token"])
            # The one that was chosen is there even where others were likelier.
            table["top_logprobs"].append({token["token"]: token["logprob"], **rated})
            self._offset += self._length(token)
        return table

    def _length(self, token: LogprobEntry) -> int:
        raw = token["bytes"]
        return len(token["token"] if raw is None else self._characters.decode(bytes(raw)))
