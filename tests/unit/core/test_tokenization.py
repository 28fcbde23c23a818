"""OpenAI's encodings compared with tiktoken: 2,103 texts in every script, and texts that hypothesis generates.

`tokens.jsonl` has each text with the ids from tiktoken 0.14 and OpenAI's rank files.
"""

import asyncio
import base64
import hashlib
import json
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from tiktoken_ext import openai_public  # type: ignore[import-untyped]

from app.core.tokenization import OFFLOAD_ABOVE_CHARACTERS, EncodingName, encoding, to_thread_if_large, vocabulary_size

NAMES: tuple[EncodingName, ...] = ("o200k_base", "cl100k_base")
# SHA-256 of the rank files, as in tiktoken.
RANK_FILES = {
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
}
ORDINARY = {"o200k_base": 199_998, "cl100k_base": 100_256}

# Tokenizers differ where parts of special tokens, white space, contractions and scripts meet.
FRAGMENTS = st.sampled_from(
    [
        "<|",
        "|>",
        "<|/",
        "<|endoftext|>",
        "<|im_start|>",
        "think",
        " ",
        "\n",
        "\r\n",
        "/",
        "!",
        "'s",
        "'LL",
        "1",
        "日",
        "😀",
    ]
)
TEXTS = st.lists(FRAGMENTS | st.text(max_size=5)).map("".join)


def tokens_of(name: EncodingName) -> dict[bytes, int]:
    ours = encoding(name)
    return {ours.token_bytes(number) or b"": number for number in range(ORDINARY[name])}


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> EncodingName:
    param: EncodingName = request.param
    return param


@pytest.fixture(scope="module")
def reference(name: EncodingName) -> tiktoken.Encoding:
    """tiktoken with our vocabulary instead of a download."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openai_public, "load_tiktoken_bpe", lambda *_args, **_kwargs: tokens_of(name))
        return tiktoken.Encoding(**getattr(openai_public, name)())


def test_the_vocabulary_equals_openais_rank_file(name: EncodingName) -> None:
    lines = [base64.b64encode(token) + b" %d\n" % number for token, number in tokens_of(name).items()]

    assert hashlib.sha256(b"".join(lines)).hexdigest() == RANK_FILES[name]


def test_texts_in_every_script_encode_as_with_tiktoken_and_decode(name: EncodingName) -> None:
    ours = encoding(name)
    texts = [json.loads(line) for line in Path(__file__).with_name("tokens.jsonl").read_text().splitlines()]

    assert len(texts) > 2000
    assert [text["text"] for text in texts if ours.encode(text["text"]) != text[name]] == []
    assert [text["text"] for text in texts if ours.decode(text[name]) != text["text"]] == []


@given(text=TEXTS)
def test_any_text_encodes_as_with_tiktoken(name: EncodingName, reference: tiktoken.Encoding, text: str) -> None:
    assert encoding(name).encode(text) == reference.encode_ordinary(text)


@given(text=TEXTS)
def test_any_encoded_text_decodes_to_itself(name: EncodingName, text: str) -> None:
    ours = encoding(name)

    assert ours.decode(ours.encode(text)) == text


def test_special_tokens_and_size_are_as_with_tiktoken(name: EncodingName, reference: tiktoken.Encoding) -> None:
    ours = encoding(name)

    assert vocabulary_size(name) == reference.n_vocab
    assert {ours.decode([number]): number for number in ours.special_ids} == reference._special_tokens


@pytest.mark.parametrize("unknown", [199_998, 200_019, 2**62, -1])
def test_an_unknown_id_has_no_text(unknown: int) -> None:
    assert encoding("o200k_base").token_bytes(unknown) is None
    assert encoding("o200k_base").decode([unknown]) == ""


def test_ids_of_half_a_character_decode_to_the_replacement_character() -> None:
    ours = encoding("o200k_base")
    halves = ours.encode("🦩")

    assert ours.decode(halves) == "🦩"
    assert "\ufffd" in ours.decode(halves[:1])


def test_every_token_is_found_by_its_bytes(name: EncodingName) -> None:
    ours = encoding(name)

    assert all(ours.id_of(token) == number for token, number in tokens_of(name).items())
    assert ours.id_of(b"no token is as long as this one is") is None


@pytest.mark.parametrize(
    "text", [" " * 1_000_000, "a" * 1_000_000, "\n" * 1_000_000], ids=["blanks", "letters", "lines"]
)
def test_a_million_equal_characters_are_encoded(text: str) -> None:
    ours = encoding("o200k_base")

    assert ours.decode(ours.encode(text)) == text


async def test_a_long_text_does_not_block_the_event_loop() -> None:
    loop, started = asyncio.get_running_loop(), asyncio.Event()

    def work() -> str:
        loop.call_soon_threadsafe(started.set)
        asyncio.run_coroutine_threadsafe(started.wait(), loop).result(timeout=5)
        return "done"

    assert await to_thread_if_large(OFFLOAD_ABOVE_CHARACTERS + 1, work) == "done"


async def test_a_short_text_needs_no_thread() -> None:
    assert await to_thread_if_large(1, asyncio.get_running_loop) is asyncio.get_running_loop()
