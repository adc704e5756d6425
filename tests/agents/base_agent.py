"""An agent written by hand after the base dialect's transcripts; it has never heard of this package.

``base_agent.py MODE``. Like a real one it lingers after ``agent/completed`` until its input ends.
"""

import json
import os
import signal
import sys
from typing import Any

MODE = sys.argv[1]
HUB_CALLS = [
    ("hub/status", {}),
    (
        "hub/spawn_agent",
        {"name": "kid", "prompt": "hi", "model": None, "cwd": os.getcwd(), "permission_mode": "bypass"},
    ),
    ("hub/wait_agent", {"name": "kid"}),
    (
        "hub/route",
        {
            "id": "1c9f6f0e-5c1e-4d55-9a5e-2f3a1f6f0a12",
            "source": {"Agent": "main"},
            "target": "nobody",
            "content": {"text": "ping"},
            "timestamp": "2026-04-02T09:42:12.123456789Z",
        },
    ),
    ("agent/permission", {"tool_call_id": "toolu_01", "tool_input": {"command": "ls"}, "tool_name": "Bash"}),
]


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0"} | message, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def event(payload: Any) -> None:
    say({"method": "agent/event", "params": {"agent_name": None, "payload": payload}})


def complete(result: Any) -> None:
    event("Finished")
    say({"method": "agent/completed", "params": {"reason": "goal", "result": result}})


def start(params: dict[str, Any]) -> None:
    assert set(params) >= {
        "cwd",
        "lifecycle",
        "mode",
        "model",
        "no_sandbox",
        "permission_mode",
        "prompt",
        "resume",
    }
    event("Started")
    if MODE == "dies":
        event({"Stream": {"text": "going"}})
        print("out of memory", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    elif MODE == "stone":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        event("AwaitingInput")
        while True:
            signal.pause()
    elif MODE == "calls":
        call(0)
    elif params["lifecycle"] == "ephemeral" and MODE != "stays":
        event({"Stream": {"text": "Hello"}})
        complete("did " + params["prompt"])
    else:
        event("AwaitingInput")


answers: list[Any] = []


def call(number: int) -> None:
    method, params = HUB_CALLS[number]
    say({"id": number + 1, "method": method, "params": params})


def on_answer(message: dict[str, Any]) -> None:
    answers.append(message.get("result", message.get("error")))
    if len(answers) < len(HUB_CALLS):
        call(len(answers))
    else:
        complete(json.dumps(answers))


def on_request(message: dict[str, Any]) -> None:
    method, id_ = message["method"], message["id"]
    if method == "initialize":
        say(
            {
                "id": id_,
                "result": {"agent_info": {"name": "loopal", "version": "0.0.0"}, "protocol_version": 1},
            }
        )
    elif method == "agent/start":
        say({"id": id_, "result": {"session_id": "5d0f3a52-0b0e-4a0e-8a8f-1e2f3a4b5c6d"}})
        start(message["params"])
    elif method == "agent/message":
        say({"id": id_, "result": {"ok": True}})
        event({"Stream": {"text": "heard " + message["params"]["content"]["text"]}})
    elif method in ("agent/control", "agent/shutdown"):
        say({"id": id_, "result": {"ok": True}})
        if method == "agent/shutdown" and MODE != "deaf":
            say({"method": "agent/completed", "params": {"reason": "shutdown", "result": None}})
    else:
        say({"id": id_, "error": {"code": -32601, "message": "unknown: " + method}})


def main() -> None:
    if MODE == "quits":
        sys.exit("no licence key")
    if MODE in ("rubbish", "only-rubbish"):
        print("Welcome to my agent!\n\n{not json\n[]\n\x00\xff", flush=True)
    if MODE == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if MODE in ("mute", "only-rubbish"):
        signal.pause()
    for line in sys.stdin:
        message = json.loads(line)
        if "method" not in message:
            on_answer(message)
        elif "id" in message:
            on_request(message)
    if MODE == "deaf":
        while True:
            signal.pause()


main()
