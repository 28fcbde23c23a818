"""Generates the tables of docs/models.md from the model table and from requests to each model over the simulator.

`python -m tests.models_page` writes them.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.features.llm.model_families import MODELS, ModelFamily
from app.simulator.server import Simulator
from tests.openai_schema import violations
from tests.processes import ROOT
from tests.serving import served_over

PAGE = ROOT / "docs/models.md"
BEGIN, END = "<!-- tables: made by `make format` -->\n", "<!-- end of tables -->\n"
CHAT = "/v1/chat/completions"

QUESTION = {"role": "user", "content": "What grows in a garden?"}
USUAL: dict[str, Any] = {"temperature": 0, "max_tokens": 64, "reasoning_effort": "none"}
LOGPROBS = {"logprobs": True, "top_logprobs": 2}
TOOL = {
    "type": "function",
    "function": {
        "name": "find",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    },
}
_TOOLS_ON = {
    "chat": "Chat",
    "chat_at_none": "Chat, effort `none`",
    "responses": "Responses API only",
    "nowhere": "none",
}


@dataclass
class Outcome:
    """The responses to requests to one model."""

    logprobs: httpx.Response
    """Temperature 0, 64 tokens, a stop string and log probabilities, at the lowest effort."""
    chat: httpx.Response
    """The same, without log probabilities if the model does not support them."""
    calls: httpx.Response
    """A request with a required tool call."""
    round_trip: httpx.Response | None = None
    """The response to the tool's result."""
    violations: list[str] = field(default_factory=list)
    """Violations of OpenAI's schema in the bodies sent upstream."""


@dataclass
class Walk:
    """The outcome of each model, the simulator's text, and the stop string."""

    outcomes: dict[str, Outcome]
    text: str
    stop: str


async def walk() -> Walk:
    """Send requests to every model of the table, over a simulator on which none is shut down."""
    served = {name: name for name in MODELS}
    async with (
        Simulator() as simulator,
        served_over(simulator.base_url, served_models=served, startup_check="off") as url,
        httpx.AsyncClient(base_url=url, timeout=10, trust_env=False) as client,
    ):
        whole = await client.post(CHAT, json={"model": "gpt-4o-mini", "messages": [QUESTION], **USUAL})
        text = whole.json()["choices"][0]["message"]["content"]
        stop = text.split()[3]
        return Walk({name: await _ask(name, stop, client, simulator) for name in served}, text, stop)


async def _ask(name: str, stop: str, client: httpx.AsyncClient, simulator: Simulator) -> Outcome:
    simulator.traffic.exchanges.clear()
    usual = {"model": name, "messages": [QUESTION], "stop": [stop], **USUAL}
    with_logprobs = chat = await client.post(CHAT, json=usual | LOGPROBS)
    if with_logprobs.status_code == 400:
        chat = await client.post(CHAT, json=usual)
    tools = {"model": name, "messages": [QUESTION], "tools": [TOOL], **USUAL}
    calls = await client.post(CHAT, json=tools | {"tool_choice": "required"})
    outcome = Outcome(with_logprobs, chat, calls)
    if calls.status_code == 200:
        message = calls.json()["choices"][0]["message"]
        result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "Roses."}
        asked = {"role": "assistant", "content": message["content"], "tool_calls": message["tool_calls"]}
        outcome.round_trip = await client.post(CHAT, json=tools | {"messages": [QUESTION, asked, result]})
    outcome.violations = violations(simulator.traffic.exchanges)
    return outcome


def tables(outcomes: Mapping[str, Outcome]) -> str:
    """Return the tables: the properties of each model, and the results of requests to it."""
    return (
        "| Model | Context | Output | Efforts (default) | Tools | Shutdown | Successor |\n"
        "|---|---|---|---|---|---|---|\n"
        + "".join(_facts(name, row) for name, row in MODELS.items())
        + "\n| Model | Usual chat | Reported | `logprobs` | Tool round trip |\n|---|---|---|---|---|\n"
        + "".join(_results(name, outcome) for name, outcome in outcomes.items())
    )


def _facts(name: str, row: ModelFamily) -> str:
    efforts = f"{', '.join(row.efforts)} ({row.default_effort})" if row.efforts else ""
    cells = [f"`{name}`", _number(row.context), _number(row.output), efforts, _TOOLS_ON[row.tools]]
    return f"| {' | '.join([*cells, str(row.ends or ''), f'`{row.successor}`' if row.successor else ''])} |\n"


def _number(tokens: int | None) -> str:
    return "" if tokens is None else f"{tokens:,}"


def _results(name: str, outcome: Outcome) -> str:
    round_trip = outcome.round_trip or outcome.calls
    cells = [
        f"`{name}`",
        _shown(outcome.chat),
        _reported(outcome.chat),
        _shown(outcome.logprobs, at_200="yes"),
        _shown(round_trip),
    ]
    return f"| {' | '.join(cells)} |\n"


def _shown(response: httpx.Response, *, at_200: str = "") -> str:
    if response.status_code != 200:
        return f"{response.status_code}, names `{response.json()['error']['param']}`"
    return at_200 or f"200, `{response.json()['choices'][0]['finish_reason']}`"


def _reported(response: httpx.Response) -> str:
    headers = {"ignored": "x-ignored-params", "adjusted": "x-adjusted-params"}
    return "; ".join(f"{word} `{response.headers[name]}`" for word, name in headers.items() if name in response.headers)


def with_tables(page: str, outcomes: Mapping[str, Outcome]) -> str:
    """Return the page with the current tables between its markers."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + tables(outcomes) + END + rest.partition(END)[2]


if __name__ == "__main__":
    # The server logs a warning for every model that is shut down.
    logging.disable(logging.WARNING)
    PAGE.write_text(with_tables(PAGE.read_text(), asyncio.run(walk()).outcomes))
