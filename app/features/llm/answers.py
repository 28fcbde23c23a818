"""OpenAI's answers made into vLLM's: whole ones and streams."""

from app.features.llm.schema import ChatCompletionRequest, ChatCompletionResponse, JSONObject


def answer_id(request: ChatCompletionRequest, upstream_id: str) -> str:
    """The id the client asked for, as vLLM forms it, else upstream's."""
    return f"chatcmpl-{request.request_id}" if request.request_id else upstream_id


def chat_answer(request: ChatCompletionRequest, answer: bytes) -> ChatCompletionResponse:
    """OpenAI's JSON answer in vLLM's shape, under the name the client asked for.

    Raises:
        ValidationError: it is no such answer.
    """
    translated = ChatCompletionResponse.model_validate_json(answer)
    translated.id = answer_id(request, translated.id)
    translated.model = request.model or translated.model
    # vLLM fills the details only when its operator asks for them.
    translated.usage.prompt_tokens_details = translated.usage.completion_tokens_details = None
    for choice in translated.choices:
        choice.message.annotations = choice.message.annotations or None
    return translated


class ChunkTranslator:
    """Makes the events of one OpenAI stream into vLLM's chunks, in order.

    vLLM begins each choice with a chunk of its own for the role, has no `usage` key but where asked, and puts
    `system_fingerprint` into the usage chunk, or into the finish chunk where there is none.
    """

    def __init__(self, request: ChatCompletionRequest) -> None:
        self._request = request
        self._shows_usage = bool(request.stream_options and request.stream_options.include_usage)
        self._head: JSONObject = {}
        self._begun: set[int] = set()
        self._calling: set[int] = set()

    def chunks(self, event: JSONObject) -> list[JSONObject]:
        """The chunks that stand for one event; often one, sometimes none."""
        if not self._head:
            self._head = self._make_head(event)
        translated = [chunk for choice in event["choices"] for chunk in self._choice(event, choice)]
        if self._shows_usage and event.get("usage"):
            translated.append(self._usage(event))
        return translated

    def _make_head(self, event: JSONObject) -> JSONObject:
        return {
            "id": answer_id(self._request, event["id"]),
            "object": "chat.completion.chunk",
            "created": event["created"],
            "model": self._request.model or event["model"],
        }

    def _choice(self, event: JSONObject, choice: JSONObject) -> list[JSONObject]:
        index, delta, finish = choice["index"], choice["delta"], choice.get("finish_reason")
        role = delta.pop("role", "assistant")
        if delta.get("refusal", "") is None:
            del delta["refusal"]
        chunks = []
        if index not in self._begun:
            self._begun.add(index)
            chunks.append(self._role(index, role))
            if not delta.get("content") and not delta.get("tool_calls"):
                delta.pop("content", None)
        if "tool_calls" in delta:
            self._calling.add(index)
        if finish is None and not delta:
            return chunks
        return [*chunks, self._delta(event, choice, finish)]

    def _role(self, index: int, role: str) -> JSONObject:
        delta = {"role": role, "content": ""}
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        return {**self._head, "choices": [choice], "prompt_token_ids": None, "prompt_text": None}

    def _delta(self, event: JSONObject, choice: JSONObject, finish: str | None) -> JSONObject:
        index, delta, logprobs = choice["index"], choice["delta"], choice.get("logprobs")
        translated: JSONObject = {
            "index": index,
            "delta": delta,
            "logprobs": logprobs and {"content": logprobs.get("content")},
            "finish_reason": finish,
        }
        if finish is None:
            return {**self._head, "choices": [{**translated, "token_ids": None}]}
        if not delta and index not in self._calling:
            translated["delta"] = {"content": ""}
        chunk = {**self._head, "choices": [{**translated, "stop_reason": None, "token_ids": None}]}
        if not self._shows_usage:
            chunk["system_fingerprint"] = event.get("system_fingerprint")
        return chunk

    def _usage(self, event: JSONObject) -> JSONObject:
        usage = {name: event["usage"][name] for name in ("prompt_tokens", "total_tokens", "completion_tokens")}
        return {**self._head, "choices": [], "usage": usage, "system_fingerprint": event.get("system_fingerprint")}
