"""The servers that are compared, and how each is started."""

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.load import CLIENT_KEY

PEERS = Path(sys.prefix) / "peers"
"""The folder where `make bench-peers` installs."""

_LITELLM = """\
model_list:
  - model_name: gpt-4o-mini
    litellm_params: {model: openai/gpt-4o-mini, api_base: "$upstream/v1", api_key: sk-bench}
"""
_NGINX = """\
daemon off; worker_processes 1; pid $folder/nginx.pid; error_log /dev/null;
events { worker_connections 8192; }
http {
  access_log off; client_body_temp_path $folder; proxy_temp_path $folder; fastcgi_temp_path $folder;
  uwsgi_temp_path $folder; scgi_temp_path $folder;
  upstream openai { server $upstream_address; keepalive 256; }
  server {
    listen 127.0.0.1:$port; keepalive_requests 1000000000;
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    location / { proxy_pass http://openai; }
  }
}
"""


@dataclass(frozen=True)
class Candidate:
    """A server to measure. `$port`, `$upstream`, `$upstream_address` and `$folder` are substituted in every text."""

    title: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    headers: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    boots: int = 3

    @property
    def installed(self) -> bool:
        """True if its programs are installed."""
        programs = [part for part in self.command[:2] if "/" in part or part == self.command[0]]
        return all(shutil.which(program) or Path(program).is_file() for program in programs)


_OPENAI = {"OPENAI_API_KEY": "sk-bench", "OPENAI_BASE_URL": "$upstream/v1"}
EVERYTHING_ON = {
    "VLLM_API_KEY": CLIENT_KEY,
    "KEY_REQUESTS_PER_MINUTE": "1000000000",
    "KEY_TOKENS_PER_MINUTE": "1000000000000",
    "KEY_CONCURRENT_REQUESTS": "1000000",
}
"""The optional features an operator would enable, with limits that the load does not reach."""

CANDIDATES = {
    "direct": Candidate("the upstream alone", (sys.executable, "-m", "benchmarks.upstream", "$port")),
    "nginx": Candidate("nginx", ("nginx", "-c", "$folder/nginx.conf"), files={"nginx.conf": _NGINX}),
    "sketch": Candidate(
        "the plain sketch",
        (sys.executable, "-m", "uvicorn", "benchmarks.sketch:app", "--host", "127.0.0.1", "--port", "$port"),
        _OPENAI,
    ),
    "ours": Candidate(
        "llm-server",
        (sys.executable, "-m", "app", "--host", "127.0.0.1", "--port", "$port"),
        _OPENAI | EVERYTHING_ON,
    ),
    "litellm": Candidate(
        "LiteLLM 1.109.1",
        (f"{PEERS}/litellm/bin/litellm", "--config", "$folder/litellm.yaml", "--host", "127.0.0.1", "--port", "$port"),
        {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            # Without a master key, like the others; it listens on 127.0.0.1 for a few minutes.
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        },
        files={"litellm.yaml": _LITELLM},
        boots=1,
    ),
    "portkey": Candidate(
        "Portkey 1.15.2",
        (
            "node",
            f"{PEERS}/portkey/node_modules/@portkey-ai/gateway/build/start-server.js",
            "--port=$port",
            "--headless",
        ),
        headers="x-portkey-provider: openai\r\nx-portkey-custom-host: $upstream/v1\r\n",
    ),
    "vllm-router": Candidate(
        "vllm-router 0.1.17",
        (
            *(f"{PEERS}/routers/bin/vllm-router", "--host", "127.0.0.1", "--port", "$port"),
            *("--prometheus-port", "$other_port", "--worker-urls", "$upstream"),
        ),
    ),
    "smg": Candidate(
        "smg 1.13.0",
        (
            *(f"{PEERS}/routers/bin/smg", "launch", "--host", "127.0.0.1", "--port", "$port", "--backend", "openai"),
            *("--prometheus-port", "$other_port", "--worker-urls", "$upstream"),
        ),
    ),
}
