"""Bodies of chat requests to the simulator."""

from typing import Any

USER = {"role": "user", "content": "Hi"}
FUNCTION = {"type": "function", "function": {"name": "f"}}
CALL = {"id": "call_x", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}


def chat(**members: Any) -> dict[str, Any]:
    """Return a valid request with `members` added."""
    return {"model": "gpt-4o-mini", "messages": [USER], **members}


def saying(*messages: dict[str, Any], **members: Any) -> dict[str, Any]:
    """Return the same with these messages."""
    return chat(messages=list(messages), **members)
