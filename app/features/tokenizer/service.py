"""Encoding of texts and conversations into token ids and back, as in vLLM's tokenizer routes."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.core.errors.request_errors import RequestError
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
    """vLLM's tokenizer routes over the encodings of OpenAI's models."""

    def __init__(self, catalogue: Catalogue, *, default_model: str) -> None:
        self._catalogue = catalogue
        self._default_model = default_model

    async def tokenize(self, request: TokenizeRequest, size_bytes: int) -> TokenizeResponse:
        """Encode a prompt, or a conversation in OpenAI's chat format. A large request is encoded in a thread.

        Raises:
            RequestError: the model is not served, its encoding is unknown, or OpenAI accepts no such message.
        """
        name = self._served_name(request.model)
        family = self._catalogue.family(name)
        if isinstance(request, TokenizeChatRequest):
            _reject_untrusted(request)

        def encode() -> TokenizeResponse:
            tokenizer = encoding(self._catalogue.encoding(name))
            ids = _ids(tokenizer, request)
            token_strings = _token_strings(tokenizer, ids) if request.return_token_strs else None
            return TokenizeResponse(len(ids), family.context, ids, token_strings)

        return await to_thread_if_large(size_bytes, encode)

    async def detokenize(self, request: DetokenizeRequest, size_bytes: int) -> DetokenizeResponse:
        """Decode ids; special tokens become their names, unknown ids are dropped.

        Raises:
            RequestError: the model is not served or its encoding is unknown.
        """
        name = self._served_name(request.model)
        text = await to_thread_if_large(
            size_bytes, lambda: encoding(self._catalogue.encoding(name)).decode(request.tokens)
        )
        return DetokenizeResponse(text)

    def info(self) -> Mapping[str, Any]:
        """Return the default model's tokenizer configuration, in the form of Hugging Face's `tokenizer_config.json`.

        Raises:
            RequestError: its encoding is unknown.
        """
        tokenizer = encoding(self._catalogue.encoding(self._default_model))
        special = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
        return {
            "add_bos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": {
                str(token): {"content": tokenizer.decode([token]), **special} for token in tokenizer.named_ids
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

    def _served_name(self, requested: str | None) -> str:
        name = requested or self._default_model
        self._catalogue.require_served(name)
        return name


def _ids(tokenizer: Encoding, request: TokenizeRequest) -> list[int]:
    if isinstance(request, TokenizePromptRequest):
        return tokenizer.encode(request.prompt)
    return prompt_ids(
        tokenizer,
        Conversation(request.messages).messages,
        request.tools,
        add_generation_prompt=request.add_generation_prompt,
        continue_final_message=request.continue_final_message,
    )


def _reject_untrusted(request: TokenizeChatRequest) -> None:
    for name, message in _UNTRUSTED.items():
        if getattr(request, name):
            raise RequestError(message.format(name=name), param=name)
    kwargs = request.chat_template_kwargs or {}
    if kwargs.get("chat_template") is not None:
        raise RequestError(UNTRUSTED_TEMPLATE, param="chat_template_kwargs")
    if kwargs:
        current_record().ignored_params.append("chat_template_kwargs")


def _byte_alphabet() -> dict[int, str]:
    """Return the printable character for each byte of a token, as in GPT-2's vocabulary and Hugging Face's library."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = (byte for byte in range(256) if byte not in printable)
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + index) for index, byte in enumerate(others)}


_BYTE_ALPHABET = _byte_alphabet()


def _token_strings(tokenizer: Encoding, ids: Sequence[int]) -> list[str]:
    # Once for each distinct token; a long text repeats most of them.
    bytes_of = {token: tokenizer.token_bytes(token) or b"" for token in set(ids)}
    spellings = {token: content.decode("latin-1").translate(_BYTE_ALPHABET) for token, content in bytes_of.items()}
    return [spellings[token] for token in ids]
