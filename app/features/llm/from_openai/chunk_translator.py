"""Translate the chunks of an OpenAI stream into vLLM's."""

from collections import Counter

from app.features.llm.from_openai.chat_completion import ENDED_BY_MODEL, response_head
from app.features.llm.from_openai.openai_chunks import (
    Chunk,
    ChunkChoice,
    Delta,
    TokenUsage,
    ToolCallDelta,
    checked_chunk,
    logprob_entries,
    token_counts,
)
from app.features.llm.from_openai.plan import ResponsePlan
from app.features.llm.from_openai.text_filter import TextFilter
from app.features.llm.from_openai.tokens import StreamTokens
from app.features.llm.schema import ChatCompletionRequest, JSONObject, Usage


def _has_tokens(choice: ChunkChoice) -> bool:
    return bool(choice["token_ids"] or logprob_entries(choice))


class ChunkTranslator:
    """Translates the chunks of one OpenAI stream into vLLM's, in order.

    vLLM starts each choice with a separate chunk for the role, sends `usage` only on request, and puts
    `system_fingerprint` into the usage chunk, or into the finish chunk if there is no usage chunk.
    """

    def __init__(self, request: ChatCompletionRequest, plan: ResponsePlan) -> None:
        self._request = request
        self._choices = request.n or 1
        self._plan = plan
        self._shows_usage = bool(request.stream_options and request.stream_options.include_usage)
        self._head: JSONObject = {}
        self._started_choices: set[int] = set()
        # Tool calls started so far, per choice.
        self._call_counts: Counter[int] = Counter()
        self._text_filters: dict[int, TextFilter] = {}
        self._stopped: set[int] = set()
        self._tokens = StreamTokens(plan.tokens, plan.prompt_ids) if plan.tokens else None
        # Only OpenAI knows the details of the usage.
        self._counts_at_stop = bool(plan.tokens and plan.tokens.counts_at_stop and not plan.usage_details)
        self._finished: set[int] = set()
        self._usage_shown = False
        # With several choices, consecutive events differ in more than their text.
        self._has_plain_texts = not (self._tokens or plan.edits_text) and self._choices == 1

    @property
    def complete(self) -> bool:
        """Whether every choice has stopped, so that the rest of the stream adds no text."""
        needs_upstream_usage = self._shows_usage and not self._counts_at_stop
        return not needs_upstream_usage and len(self._stopped) == self._choices

    @property
    def finished(self) -> bool:
        """Whether every requested choice has a finish reason."""
        return len(self._finished) == self._choices

    def aborted_chunks(self) -> list[JSONObject]:
        """Return the last chunks of a stream that the shutdown aborts: unfinished choices, and usage if requested."""
        unfinished = [index for index in range(self._choices) if index not in self._finished]
        choices = [{"index": index, "finish_reason": "abort"} for index in unfinished]
        usage = None if self._usage_shown else Usage().model_dump()
        return self.chunks(checked_chunk({"choices": choices, "usage": usage}))

    def chunks(self, chunk: Chunk) -> list[JSONObject]:
        """Translate one of OpenAI's chunks into any number of vLLM's, usually one.

        Raises:
            ValueError: the chunk has a choice that was not requested.
        """
        choices = chunk.get("choices") or []
        # Some services start with an event without choices and without a usable id.
        if not self._head and choices:
            self._head = self._make_head(chunk)
        translated = [new for choice in choices for new in self._choice_chunks(chunk, choice)]
        if self._shows_usage and (counts := token_counts(chunk["usage"])):
            translated.append(self._usage_chunk(chunk, counts, chunk["usage"]))
        elif self._shows_usage and self._tokens and self.complete:
            translated.append(self._usage_chunk(chunk, self._tokens.usage()))
        return translated

    def plain_text(self, chunk: Chunk) -> str | None:
        """Return the chunk's text if it has only text and its translation changed no state here; else None.

        Except for the first of a choice, the translations of two such chunks differ in their text only.
        """
        choices = chunk.get("choices") or []
        if not self._has_plain_texts or len(choices) != 1 or chunk["usage"]:
            return None
        choice = choices[0]
        delta = choice.get("delta") or {}
        if choice.get("logprobs") is not None or choice["finish_reason"] is not None or len(delta) != 1:
            return None
        return delta.get("content")

    def _make_head(self, chunk: Chunk) -> JSONObject:
        head = response_head(self._request, chunk)
        return {"id": head.pop("id"), "object": "chat.completion.chunk", **head}

    def _choice_chunks(self, chunk: Chunk, choice: ChunkChoice) -> list[JSONObject]:
        index = choice["index"] = self._choice_index(choice)
        delta = choice["delta"] = choice.get("delta") or {}
        if index in self._stopped:
            return []
        delta.pop("role", None)
        if delta.get("refusal", "") is None:
            del delta["refusal"]
        chunks = [] if index in self._started_choices else self._first_chunks(index, delta)
        if "tool_calls" in delta:
            self._number_calls(index, delta)
        if self._plan.edits_text:
            self._filter_text(index, choice, delta)
        if self._tokens:
            self._tokens.show(index, choice, delta)
        if choice["finish_reason"] is None and not delta and not _has_tokens(choice):
            return chunks
        if "tool_calls" in delta:
            delta = {"content": None, **delta}
        return [*chunks, self._delta_chunk(chunk, choice, index, delta)]

    def _choice_index(self, choice: ChunkChoice) -> int:
        index = choice["index"]
        if index is None and self._choices == 1:
            return 0
        if index is None or index >= self._choices:
            raise ValueError(f"choice {index} where {self._choices} were asked for")
        return index

    def _first_chunks(self, index: int, delta: Delta) -> list[JSONObject]:
        self._started_choices.add(index)
        if not delta.get("content") and not delta.get("tool_calls"):
            delta.pop("content", None)
        role = {"role": self._plan.role, "content": ""}
        choice = {"index": index, "delta": role, "logprobs": None, "finish_reason": None}
        ids = self._tokens.prompt_ids if self._tokens else None
        usage = self._running_usage(index)
        chunks = [{**self._head, "choices": [choice], **usage, "prompt_token_ids": ids, "prompt_text": None}]
        if self._plan.echo:
            echoed = {"index": index, "delta": {"content": self._plan.echo}, "logprobs": None, "finish_reason": None}
            chunks.append({**self._head, "choices": [echoed], **usage})
        return chunks

    def _running_usage(self, index: int) -> JSONObject:
        return self._tokens.running(index) if self._tokens else {}

    def _number_calls(self, index: int, delta: Delta) -> None:
        """Number tool calls without an index, and remove calls that the client must not see."""
        calls = [self._numbered(index, call) for call in delta["tool_calls"] or ()]
        if self._plan.one_tool_call:
            calls = [call for call in calls if call["index"] == 0]
        delta["tool_calls"] = calls
        if not calls:
            del delta["tool_calls"]

    def _numbered(self, index: int, call: ToolCallDelta) -> ToolCallDelta:
        number = call["index"]
        if number is None:
            # An id starts a call. A delta without one continues the last call.
            number = call["index"] = max(self._call_counts[index] - (not call.get("id")), 0)
        self._call_counts[index] = max(self._call_counts[index], number + 1)
        return call

    def _filter_text(self, index: int, choice: ChunkChoice, delta: Delta) -> None:
        """Replace the text and log probabilities of a choice by what the client may see of them."""
        text_filter = self._text_filters.setdefault(index, TextFilter(self._plan))
        text, entries = text_filter.read(delta.pop("content", None) or "", logprob_entries(choice))
        choice["logprobs"] = {"content": entries} if entries else None
        if choice["finish_reason"] is not None or text_filter.stop_reason is not None:
            text += text_filter.finish()
        if text_filter.too_long:
            self._stopped.add(index)
            choice["finish_reason"] = "length"
        elif text_filter.stop_reason is not None:
            self._stopped.add(index)
            choice["finish_reason"], choice["stop_reason"] = "stop", text_filter.stop_reason
        elif choice["finish_reason"] == "length" and text_filter.complete:
            choice["finish_reason"] = "stop"
        if text:
            delta["content"] = text

    def _delta_chunk(self, chunk: Chunk, choice: ChunkChoice, index: int, delta: Delta) -> JSONObject:
        logprobs, finish = choice.get("logprobs"), choice["finish_reason"]
        translated: JSONObject = {
            "index": index,
            "delta": delta if delta or self._call_counts[index] else {"content": ""},
            "logprobs": logprobs and {"content": logprobs.get("content")},
            "finish_reason": finish,
        }
        ids, usage = choice["token_ids"], self._running_usage(index)
        if finish is None:
            return {**self._head, "choices": [{**translated, "token_ids": ids}], **usage, "kv_transfer_params": None}
        self._finished.add(index)
        if finish in ENDED_BY_MODEL:
            translated["finish_reason"] = self._plan.finish_with_calls if index in self._call_counts else "stop"
        ended = {**translated, "stop_reason": choice["stop_reason"], "token_ids": ids, "weight_versions": None}
        finish_chunk = {**self._head, "choices": [ended], **usage}
        if not self._shows_usage:
            finish_chunk["system_fingerprint"] = chunk["system_fingerprint"]
        finish_chunk["kv_transfer_params"] = None
        return finish_chunk

    def _usage_chunk(self, chunk: Chunk, counts: JSONObject, usage: TokenUsage | None = None) -> JSONObject:
        self._usage_shown = True
        if self._plan.usage_details:
            counts |= {name: value for name, value in (usage or {}).items() if name not in counts and value is not None}
        return {**self._head, "choices": [], "usage": counts, "system_fingerprint": chunk["system_fingerprint"]}
