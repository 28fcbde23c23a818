"""OpenAI stream events made into vLLM chunks."""

from app.features.llm.from_openai.chat_completion import own_head, response_id
from app.features.llm.from_openai.plan import ResponsePlan
from app.features.llm.from_openai.text import TextFilter
from app.features.llm.from_openai.tokens import StreamTokens
from app.features.llm.schema import (
    ChatCompletionRequest,
    JSONObject,
    Usage,
)


def _has_tokens(choice: JSONObject) -> bool:
    return bool(choice.get("token_ids") or (choice.get("logprobs") or {}).get("content"))


class ChunkTranslator:
    """Makes the events of one OpenAI stream into vLLM's chunks, in order.

    vLLM begins each choice with a chunk of its own for the role, has no `usage` key but where asked, and puts
    `system_fingerprint` into the usage chunk, or into the finish chunk where there is none.
    """

    def __init__(self, request: ChatCompletionRequest, plan: ResponsePlan) -> None:
        self._request = request
        self._plan = plan
        self._shows_usage = bool(request.stream_options and request.stream_options.include_usage)
        self._head: JSONObject = {}
        self._started_choices: set[int] = set()
        self._calling: set[int] = set()
        self._readers: dict[int, TextFilter] = {}
        self._stopped: set[int] = set()
        self._tokens = StreamTokens(plan.tokens, plan.prompt_ids) if plan.tokens else None
        # Details of the usage only OpenAI has.
        self._counts_at_stop = bool(plan.tokens and plan.tokens.counts_at_stop and not plan.usage_details)
        self._finished: set[int] = set()
        self._usage_shown = False
        # With several choices no two events in a row are alike.
        self._has_plain_texts = not (self._tokens or plan.edits_text) and (request.n or 1) == 1

    @property
    def complete(self) -> bool:
        """Whether nothing that is still to come would be shown: every choice has met a stop string."""
        needs_the_end = self._shows_usage and not self._counts_at_stop
        return not needs_the_end and len(self._stopped) == (self._request.n or 1)

    @property
    def finished(self) -> bool:
        """Whether every choice that has begun has ended, and there is one."""
        return bool(self._started_choices) and self._started_choices == self._finished

    def aborted_chunks(self) -> list[JSONObject]:
        """The end of the stream where the server ends first: of each choice that has none, and the usage asked for."""
        unfinished = [index for index in range(self._request.n or 1) if index not in self._finished]
        choices = [{"index": index, "finish_reason": "abort"} for index in unfinished]
        event = {**own_head(self._request), "choices": choices}
        return self.chunks(event if self._usage_shown else {**event, "usage": Usage().model_dump()})

    def chunks(self, event: JSONObject) -> list[JSONObject]:
        """The chunks that stand for one event; often one, sometimes none."""
        choices = event.get("choices") or []
        # Some services begin with an event of their own that has no choices, and no id worth keeping.
        if not self._head and choices:
            self._head = self._make_head(event)
        translated = [chunk for choice in choices for chunk in self._choice(event, choice)]
        if self._shows_usage and event.get("usage"):
            translated.append(self._usage(event, event["usage"]))
        elif self._shows_usage and self._tokens and self.complete:
            translated.append(self._usage(event, self._tokens.usage()))
        return translated

    def plain_text(self, event: JSONObject) -> str | None:
        """The text of an event that was translated, if it says nothing else, and did nothing else here.

        All that its chunk has beside the text, unless it was the first of its choice, is the same in each such chunk.
        """
        choices = event.get("choices") or []
        if not self._has_plain_texts or len(choices) != 1 or event.get("usage"):
            return None
        choice = choices[0]
        if choice.get("logprobs") is not None or choice.get("finish_reason") is not None or len(choice["delta"]) != 1:
            return None
        text = choice["delta"].get("content")
        return text if isinstance(text, str) else None

    def _make_head(self, event: JSONObject) -> JSONObject:
        return {
            "id": response_id(self._request, event["id"]),
            "object": "chat.completion.chunk",
            "created": event["created"],
            "model": self._request.model or event["model"],
        }

    def _choice(self, event: JSONObject, choice: JSONObject) -> list[JSONObject]:
        index = choice["index"]
        delta = choice["delta"] = choice.get("delta") or {}
        if index in self._stopped:
            return []
        delta.pop("role", None)
        if delta.get("refusal", "") is None:
            del delta["refusal"]
        chunks = [] if index in self._started_choices else self._beginning(index, delta)
        if "tool_calls" in delta:
            self._calling.add(index)
            self._limit_calls(delta)
        if self._plan.edits_text:
            self._read(index, choice)
        if self._tokens:
            self._tokens.show(choice)
        if choice.get("finish_reason") is None and not delta and not _has_tokens(choice):
            return chunks
        return [*chunks, self._delta(event, choice)]

    def _beginning(self, index: int, delta: JSONObject) -> list[JSONObject]:
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

    def _limit_calls(self, delta: JSONObject) -> None:
        if self._plan.one_tool_call:
            delta["tool_calls"] = [call for call in delta["tool_calls"] if call.get("index", 0) == 0]
            if not delta["tool_calls"]:
                del delta["tool_calls"]

    def _read(self, index: int, choice: JSONObject) -> None:
        """Put what the client is to see of this choice's text into its delta."""
        reader = self._readers.setdefault(index, TextFilter(self._plan))
        delta = choice["delta"]
        tokens = (choice.get("logprobs") or {}).get("content") or []
        text, seen = reader.read(delta.pop("content", None) or "", tokens)
        choice["logprobs"] = {"content": seen} if seen else None
        if choice.get("finish_reason") is not None or reader.stop_reason is not None:
            text += reader.finish()
        if reader.too_long:
            self._stopped.add(index)
            choice["finish_reason"] = "length"
        elif reader.stop_reason is not None:
            self._stopped.add(index)
            choice["finish_reason"], choice["stop_reason"] = "stop", reader.stop_reason
        elif choice.get("finish_reason") == "length" and reader.complete:
            choice["finish_reason"] = "stop"
        if text:
            delta["content"] = text

    def _delta(self, event: JSONObject, choice: JSONObject) -> JSONObject:
        index, delta, logprobs = choice["index"], choice["delta"], choice.get("logprobs")
        finish = choice.get("finish_reason")
        translated: JSONObject = {
            "index": index,
            "delta": delta if delta or index in self._calling else {"content": ""},
            "logprobs": logprobs and {"content": logprobs.get("content")},
            "finish_reason": finish,
        }
        ids, running = choice.get("token_ids"), self._running(index)
        if finish is None:
            return {**self._head, "choices": [{**translated, "token_ids": ids}], **running}
        self._finished.add(index)
        ended = {**translated, "stop_reason": choice.get("stop_reason"), "token_ids": ids}
        chunk = {**self._head, "choices": [ended], **running}
        if not self._shows_usage:
            chunk["system_fingerprint"] = event.get("system_fingerprint")
        return chunk

    def _usage(self, event: JSONObject, told: JSONObject) -> JSONObject:
        self._usage_shown = True
        usage = {name: told[name] for name in ("prompt_tokens", "total_tokens", "completion_tokens")}
        if self._plan.usage_details:
            usage |= {name: value for name, value in told.items() if name not in usage and value is not None}
        return {**self._head, "choices": [], "usage": usage, "system_fingerprint": event.get("system_fingerprint")}
