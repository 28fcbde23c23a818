"""Texts and conversations to token ids and back, as vLLM's tokenizer routes answer."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.core.errors.errors import RequestError
from app.core.request_record import current_record
from app.core.tokenization import Encoding, encoding, to_thread_if_large
from app.features.llm.catalogue import Catalogue
from app.features.llm.to_openai.field_mappers import UNTRUSTED_TEMPLATE
from app.features.llm.to_openai.messages import Conversation
from app.features.llm.to_openai.parameters import DISABLED_KWARGS
from app.features.llm.to_openai.prompt_tokens import prompt_ids
from app.features.tokenizer.schema import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeChatRequest,
    TokenizePromptRequest,
    TokenizeRequest,
    TokenizeResponse,
)

END_OF_TEXT = "<|endoftext|>"

_UNTRUSTED = {
    "chat_template": UNTRUSTED_TEMPLATE,
    "media_io_kwargs": DISABLED_KWARGS,
    "mm_processor_kwargs": DISABLED_KWARGS,
}


class TokenizerService:
    """What vLLM's tokenizer routes do, with the encodings of OpenAI's models."""

    def __init__(self, catalogue: Catalogue, *, default_model: str) -> None:
        self._catalogue = catalogue
        self._default_model = default_model

    async def tokenize(self, request: TokenizeRequest, size_bytes: int) -> TokenizeResponse:
        """The ids of a text, or of a conversation in OpenAI's chat format; `size_bytes` is the request's length.

        Raises:
            RequestError: the model is not served or its encoding not known, or OpenAI takes no such message.
        """
        name = self._served(request.model)
        family = self._catalogue.family(name)
        if isinstance(request, TokenizeChatRequest):
            _refuse_untrusted(request)

        def work() -> TokenizeResponse:
            coder = encoding(self._catalogue.encoding(name))
            ids = _ids(coder, request)
            shown = _shown(coder, ids) if request.return_token_strs else None
            return TokenizeResponse(len(ids), family.context, ids, shown)

        return await to_thread_if_large(size_bytes, work)

    async def detokenize(self, request: DetokenizeRequest, size_bytes: int) -> DetokenizeResponse:
        """The text of ids; special ones are their names, unknown ones nothing.

        Raises:
            RequestError: the model is not served or its encoding not known.
        """
        name = self._served(request.model)
        text = await to_thread_if_large(
            size_bytes, lambda: encoding(self._catalogue.encoding(name)).decode(request.tokens)
        )
        return DetokenizeResponse(text)

    def info(self) -> Mapping[str, Any]:
        """The default model's tokenizer, described as Hugging Face's library describes one of this kind.

        Raises:
            RequestError: its encoding is not known.
        """
        coder = encoding(self._catalogue.encoding(self._default_model))
        special = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
        return {
            "add_bos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": {
                str(token): {"content": coder.decode([token]), **special} for token in coder.named_ids
            },
            "bos_token": END_OF_TEXT,
            "clean_up_tokenization_spaces": False,
            "eos_token": END_OF_TEXT,
            "errors": "replace",
            "model_max_length": self._catalogue.family(self._default_model).context,
            "pad_token": None,
            "tokenizer_class": "GPT2TokenizerFast",
            "unk_token": END_OF_TEXT,
        }

    def _served(self, asked: str | None) -> str:
        name = asked or self._default_model
        self._catalogue.require_served(name)
        return name


def _ids(coder: Encoding, request: TokenizeRequest) -> list[int]:
    if isinstance(request, TokenizePromptRequest):
        return coder.encode(request.prompt)
    return prompt_ids(
        coder,
        Conversation(request.messages).messages,
        request.tools,
        add_generation_prompt=request.add_generation_prompt,
        continue_final_message=request.continue_final_message,
    )


def _refuse_untrusted(request: TokenizeChatRequest) -> None:
    for name, message in _UNTRUSTED.items():
        if getattr(request, name):
            raise RequestError(message.format(name=name), param=name)
    kwargs = request.chat_template_kwargs or {}
    if kwargs.get("chat_template") is not None:
        raise RequestError(UNTRUSTED_TEMPLATE, param="chat_template_kwargs")
    if kwargs:
        current_record().ignored_params.append("chat_template_kwargs")


def _byte_alphabet() -> dict[int, str]:
    """How Hugging Face's library writes each byte of a token: GPT-2's alphabet, where every byte is a letter."""
    own = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = (byte for byte in range(256) if byte not in own)
    return {byte: chr(byte) for byte in own} | {byte: chr(256 + place) for place, byte in enumerate(others)}


_BYTE_ALPHABET = _byte_alphabet()


def _shown(coder: Encoding, ids: Sequence[int]) -> list[str]:
    # Few of a long text's tokens are distinct.
    bytes_of = {token: coder.token_bytes(token) or b"" for token in set(ids)}
    spelled = {token: written.decode("latin-1").translate(_BYTE_ALPHABET) for token, written in bytes_of.items()}
    return [spelled[token] for token in ids]
