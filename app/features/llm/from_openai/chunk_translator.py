"""OpenAI stream events made into vLLM chunks."""

from collections import Counter

from app.features.llm.from_openai.chat_completion import chat_head, own_head
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
from app.features.llm.from_openai.text import TextFilter
from app.features.llm.from_openai.tokens import StreamTokens
from app.features.llm.schema import ChatCompletionRequest, JSONObject, Usage


def _has_tokens(choice: ChunkChoice) -> bool:
    return bool(choice["token_ids"] or logprob_entries(choice))


class ChunkTranslator:
    """Makes the events of one OpenAI stream into vLLM's chunks, in order.

    vLLM begins each choice with a chunk of its own for the role, has no `usage` key but where asked, and puts
    `system_fingerprint` into the usage chunk, or into the finish chunk where there is none.
    """

    def __init__(self, request: ChatCompletionRequest, plan: ResponsePlan) -> None:
        self._request = request
        self._choices = request.n or 1
        self._plan = plan
        self._shows_usage = bool(request.stream_options and request.stream_options.include_usage)
        self._head: JSONObject = {}
        self._started_choices: set[int] = set()
        # How many tool calls each choice has begun.
        self._calls: Counter[int] = Counter()
        self._readers: dict[int, TextFilter] = {}
        self._stopped: set[int] = set()
        self._tokens = StreamTokens(plan.tokens, plan.prompt_ids) if plan.tokens else None
        # Details of the usage only OpenAI has.
        self._counts_at_stop = bool(plan.tokens and plan.tokens.counts_at_stop and not plan.usage_details)
        self._finished: set[int] = set()
        self._usage_shown = False
        # With several choices no two events in a row are alike.
        self._has_plain_texts = not (self._tokens or plan.edits_text) and self._choices == 1

    @property
    def complete(self) -> bool:
        """Whether nothing that is still to come would be shown: every choice has met a stop string."""
        needs_the_end = self._shows_usage and not self._counts_at_stop
        return not needs_the_end and len(self._stopped) == self._choices

    @property
    def finished(self) -> bool:
        """Whether every choice that was asked for has ended."""
        return len(self._finished) == self._choices

    def aborted_chunks(self) -> list[JSONObject]:
        """The end of the stream where the server ends first: of each choice that has none, and the usage asked for."""
        unfinished = [index for index in range(self._choices) if index not in self._finished]
        choices = [{"index": index, "finish_reason": "abort"} for index in unfinished]
        event = {**own_head(self._request), "choices": choices}
        return self.chunks(checked_chunk(event if self._usage_shown else {**event, "usage": Usage().model_dump()}))

    def chunks(self, chunk: Chunk) -> list[JSONObject]:
        """The chunks that stand for one of OpenAI's; often one, sometimes none.

        Raises:
            ValueError: it has a choice that was not asked for.
        """
        choices = chunk.get("choices") or []
        # Some services begin with an event of their own that has no choices, and no id worth keeping.
        if not self._head and choices:
            self._head = self._make_head(chunk)
        translated = [made for choice in choices for made in self._choice(chunk, choice)]
        if self._shows_usage and (counts := token_counts(chunk["usage"])):
            translated.append(self._usage(chunk, counts, chunk["usage"]))
        elif self._shows_usage and self._tokens and self.complete:
            translated.append(self._usage(chunk, self._tokens.usage()))
        return translated

    def plain_text(self, chunk: Chunk) -> str | None:
        """The text of a chunk that was translated, if it says nothing else, and did nothing else here.

        All that its chunk has beside the text, unless it was the first of its choice, is the same in each such chunk.
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
        head = chat_head(self._request, chunk)
        return {"id": head.pop("id"), "object": "chat.completion.chunk", **head}

    def _choice(self, chunk: Chunk, choice: ChunkChoice) -> list[JSONObject]:
        index = choice["index"] = self._index(choice)
        delta = choice["delta"] = choice.get("delta") or {}
        if index in self._stopped:
            return []
        delta.pop("role", None)
        if delta.get("refusal", "") is None:
            del delta["refusal"]
        chunks = [] if index in self._started_choices else self._beginning(index, delta)
        if "tool_calls" in delta:
            self._number_calls(index, delta)
        if self._plan.edits_text:
            self._read(index, choice, delta)
        if self._tokens:
            self._tokens.show(index, choice, delta)
        if choice["finish_reason"] is None and not delta and not _has_tokens(choice):
            return chunks
        return [*chunks, self._delta(chunk, choice, index, delta)]

    def _index(self, choice: ChunkChoice) -> int:
        index = choice["index"]
        if index is None and self._choices == 1:
            return 0
        if index is None or index >= self._choices:
            raise ValueError(f"choice {index} where {self._choices} were asked for")
        return index

    def _beginning(self, index: int, delta: Delta) -> list[JSONObject]:
        self._started_choices.add(index)
        if not delta.get("content") and not delta.get("tool_calls"):
            delta.pop("content", None)
        role = {"role": self._plan.role, "content": ""}
        choice = {"index": index, "delta": role, "logprobs": None, "finish_reason": None}
        ids = self._tokens.prompt_ids if self._tokens else None
        running = self._running(index)
        chunks = [{**self._head, "choices": [choice], **running, "prompt_token_ids": ids, "prompt_text": None}]
        if self._plan.echo:
            echoed = {"index": index, "delta": {"content": self._plan.echo}, "logprobs": None, "finish_reason": None}
            chunks.append({**self._head, "choices": [echoed], **running})
        return chunks

    def _running(self, index: int) -> JSONObject:
        return self._tokens.running(index) if self._tokens else {}

    def _number_calls(self, index: int, delta: Delta) -> None:
        """Give the pieces of tool calls the numbers that they lack, and leave out those that are not to be seen."""
        calls = [self._numbered(index, call) for call in delta["tool_calls"] or ()]
        if self._plan.one_tool_call:
            calls = [call for call in calls if call["index"] == 0]
        delta["tool_calls"] = calls
        if not calls:
            del delta["tool_calls"]

    def _numbered(self, index: int, call: ToolCallDelta) -> ToolCallDelta:
        number = call["index"]
        if number is None:
            # An id begins a call, and what has none goes on with the last one.
            number = call["index"] = max(self._calls[index] - (not call.get("id")), 0)
        self._calls[index] = max(self._calls[index], number + 1)
        return call

    def _read(self, index: int, choice: ChunkChoice, delta: Delta) -> None:
        """Put what the client is to see of this choice's text into its delta."""
        reader = self._readers.setdefault(index, TextFilter(self._plan))
        text, seen = reader.read(delta.pop("content", None) or "", logprob_entries(choice))
        choice["logprobs"] = {"content": seen} if seen else None
        if choice["finish_reason"] is not None or reader.stop_reason is not None:
            text += reader.finish()
        if reader.too_long:
            self._stopped.add(index)
            choice["finish_reason"] = "length"
        elif reader.stop_reason is not None:
            self._stopped.add(index)
            choice["finish_reason"], choice["stop_reason"] = "stop", reader.stop_reason
        elif choice["finish_reason"] == "length" and reader.complete:
            choice["finish_reason"] = "stop"
        if text:
            delta["content"] = text

    def _delta(self, chunk: Chunk, choice: ChunkChoice, index: int, delta: Delta) -> JSONObject:
        logprobs, finish = choice.get("logprobs"), choice["finish_reason"]
        translated: JSONObject = {
            "index": index,
            "delta": delta if delta or self._calls[index] else {"content": ""},
            "logprobs": logprobs and {"content": logprobs.get("content")},
            "finish_reason": finish,
        }
        ids, running = choice["token_ids"], self._running(index)
        if finish is None:
            return {**self._head, "choices": [{**translated, "token_ids": ids}], **running}
        self._finished.add(index)
        ended = {**translated, "stop_reason": choice["stop_reason"], "token_ids": ids}
        made = {**self._head, "choices": [ended], **running}
        if not self._shows_usage:
            made["system_fingerprint"] = chunk["system_fingerprint"]
        return made

    def _usage(self, chunk: Chunk, counts: JSONObject, usage: TokenUsage | None = None) -> JSONObject:
        self._usage_shown = True
        if self._plan.usage_details:
            counts |= {name: value for name, value in (usage or {}).items() if name not in counts and value is not None}
        return {**self._head, "choices": [], "usage": counts, "system_fingerprint": chunk["system_fingerprint"]}
