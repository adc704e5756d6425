"""A coding agent without a model: what it does in a turn is what its prompt says, a line each.

Standard library only, and started with ``-I -S``, so that it is up in no time. It is written from the
protocol's text, and shares nothing with the client. Lines of a prompt::

    say TEXT          an agent_message_chunk
    think TEXT        an agent_thought_chunk
    update JSON       any update
    mode MODE         go over to another mode, and say so
    raw TEXT          a line that is not of the protocol
    ask TOOL [JSON]   session/request_permission; reports which option was chosen
    request METHOD    any other request; says what came of it
    write FILE        write a file in the working directory
    flood N           so many chunks of thought
    stop REASON       end the turn with another stop reason
    stderr TEXT       a line on standard error
    wait              until the turn is cancelled
    ignore            until standard input ends, whatever is said
    stubborn          for ever, whatever is said or signalled
    die               exit with status 3

Its first argument is how it behaves; see ``main``.
"""

import json
import os
import signal
import sys
import time
from collections import deque
from typing import Any

MODES = {
    "currentModeId": "default",
    "availableModes": [{"id": "default", "name": "Default"}, {"id": "plan", "name": "Plan"}],
}
MODELS = {
    "id": "model",
    "name": "Model",
    "category": "model",
    "type": "select",
    "currentValue": "large",
    "options": [{"value": "large", "name": "Large"}, {"value": "small", "name": "Small"}],
}
ALLOW, ALWAYS, REJECT = (
    {"optionId": "opt-1", "name": "Yes", "kind": "allow_once"},
    {"optionId": "opt-2", "name": "Always", "kind": "allow_always"},
    {"optionId": "opt-3", "name": "No", "kind": "reject_once"},
)


class Agent:
    def __init__(self, manner: str) -> None:
        self.manner = manner
        self.waiting: deque[dict[str, Any]] = deque()
        self.next_id = 100
        self.session: dict[str, Any] = {}
        self.cancelled = False
        self.log = os.environ.get("ACP_LOG")

    # Lines.

    def write(self, message: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()

    def read(self) -> Any:
        while True:
            line = sys.stdin.readline()
            if not line:
                sys.exit(0)
            if self.log:
                with open(self.log, "a") as log:
                    log.write(line)
            message = json.loads(line)
            if message.get("method") == "session/cancel":
                self.cancelled = True
            return message

    def answer(self, request: dict[str, Any], result: Any = None, error: Any = None) -> None:
        self.write({"id": request["id"], **({"error": error} if error else {"result": result})})

    def ask(self, method: str, params: dict[str, Any]) -> Any:
        """Send a request; wait for its answer, and put what comes first aside."""
        self.next_id += 1
        self.write({"id": self.next_id, "method": method, "params": params})
        while True:
            message = self.read()
            if message.get("id") == self.next_id and "method" not in message:
                return message
            self.waiting.append(message)

    def update(self, update: Any) -> None:
        self.write(
            {"method": "session/update", "params": {"sessionId": self.session["id"], "update": update}}
        )

    def say(self, text: str, kind: Any = "agent_message_chunk") -> None:
        self.update({"sessionUpdate": kind, "content": {"type": "text", "text": text}})

    # Requests.

    def serve(self) -> None:
        while True:
            request = self.waiting.popleft() if self.waiting else self.read()
            if "id" in request and "method" in request:
                getattr(self, request["method"].replace("/", "_"))(request, request["params"])

    def initialize(self, request: dict[str, Any], params: dict[str, Any]) -> None:
        if self.manner == "mute":
            return
        session: dict[str, Any] = {"resume": {}} if self.manner == "resume" else {}
        self.answer(
            request,
            {
                "protocolVersion": 9 if self.manner == "version" else 1,
                "agentCapabilities": {
                    "loadSession": self.manner == "load",
                    "mcpCapabilities": {"http": self.manner == "http"},
                    "sessionCapabilities": session,
                },
                "authMethods": [{"id": "key", "name": "With a key"}],
                "agentInfo": {"name": os.environ.get("ACP_NAME", "scripted"), "version": "1"},
            },
        )

    def authenticate(self, request: dict[str, Any], params: dict[str, Any]) -> None:
        if params["methodId"] == "key" and os.environ.get("ACP_KEY") == "right":
            self.manner = "plain"
            self.answer(request, {})
        else:
            self.answer(request, error={"code": -32602, "message": "wrong key"})

    def session_new(self, request: dict[str, Any], params: dict[str, Any]) -> None:
        if self.manner == "login":
            self.answer(request, error={"code": -32000, "message": "Authentication required"})
            return
        self.session = {"id": f"session-{os.getpid()}", **params}
        options = [] if self.manner == "bare" else [MODELS]
        modes: dict[str, Any] | None = MODES
        if self.manner == "auto":
            modes = {"currentModeId": "auto", "availableModes": [{"id": "auto"}, *MODES["availableModes"]]}
            self.session["mode"] = "auto"
        if self.manner == "modeless":
            modes = None
        self.answer(request, {"sessionId": self.session["id"], "modes": modes, "configOptions": options})

    def session_resume(self, request: dict[str, Any], params: dict[str, Any]) -> None:
        self.session = {"id": params["sessionId"], **params, "resumed": True}
        self.answer(request, {"modes": MODES, "configOptions": [MODELS]})

    def session_load(self, request: dict[str, Any], params: dict[str, Any]) -> None:
        self.session = {"id": params["sessionId"], **params, "resumed": True}
        self.say("what was said in the past")
        self.answer(request, None)

    def session_set_mode(self, request: dict[str, Any], params: dict[str, Any]) -> None:
        self.session["mode"] = params["modeId"]
        self.answer(request, {})

    def session_set_config_option(self, request: dict[str, Any], params: dict[str, Any]) -> None:
        self.session[params["configId"]] = params["value"]
        self.answer(request, {"configOptions": [{**MODELS, "currentValue": params["value"]}]})

    def session_prompt(self, request: dict[str, Any], params: dict[str, Any]) -> None:
        self.cancelled = False
        text = "".join(block["text"] for block in params["prompt"])
        self.prompt = text
        reason = "end_turn"
        for line in text.splitlines():
            word, _, rest = line.partition(" ")
            if done := getattr(self, f"do_{word}", None):
                reason = done(rest) or reason
        usage = {"inputTokens": 7, "outputTokens": 5, "totalTokens": 12}
        self.answer(request, {"stopReason": "cancelled" if self.cancelled else reason, "usage": usage})

    # What a prompt can say.

    def do_say(self, text: str) -> None:
        self.say(text)

    def do_think(self, text: str) -> None:
        self.say(text, "agent_thought_chunk")

    def do_update(self, text: str) -> None:
        self.update(json.loads(text))

    def do_mode(self, mode: str) -> None:
        self.session["mode"] = mode
        self.update({"sessionUpdate": "current_mode_update", "currentModeId": mode})

    def do_serve(self, text: str) -> None:
        """Answer what has come meanwhile."""
        request = self.waiting.popleft() if self.waiting else self.read()
        getattr(self, request["method"].replace("/", "_"))(request, request["params"])

    def do_raw(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def do_tell(self, text: str) -> None:
        """Say something of the session."""
        self.say(json.dumps(self.session.get(text)))

    def do_prompt(self, text: str) -> None:
        """Say what the prompt is."""
        self.say(self.prompt)

    def do_pid(self, text: str) -> None:
        self.say(str(os.getpid()))

    def do_env(self, text: str) -> None:
        self.say(os.environ.get(text, "unset"))

    def do_cwd(self, text: str) -> None:
        self.say(os.getcwd())

    def do_ask(self, text: str) -> None:
        tool, _, given = text.partition(" ")
        options = [ALWAYS] if self.manner == "always" else [ALWAYS, ALLOW, REJECT]
        call = {"toolCallId": f"never-mentioned-{tool}", "title": f"Use {tool}", "name": tool}
        call |= {"rawInput": json.loads(given)} if given else {}
        params = {"sessionId": self.session["id"], "toolCall": call, "options": options}
        answer = self.ask("session/request_permission", params)
        outcome = answer["result"]["outcome"]
        self.say(f"{tool}: {outcome.get('optionId', outcome['outcome'])}\n")

    def do_request(self, method: str) -> None:
        answer = self.ask(method, {"sessionId": self.session["id"], "path": "/etc/passwd"})
        self.say(json.dumps(answer.get("error", answer.get("result"))))

    def do_write(self, name: str) -> None:
        with open(os.path.join(self.session["cwd"], name), "w") as file:
            file.write("written\n")

    def do_flood(self, count: str) -> None:
        for _ in range(int(count)):
            self.say("x" * 100, "agent_thought_chunk")

    def do_stop(self, reason: str) -> str:
        return reason

    def do_stderr(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def do_wait(self, text: str) -> None:
        while not self.cancelled:
            self.waiting.append(self.read())

    def do_ignore(self, text: str) -> None:
        while True:
            self.read()

    def do_stubborn(self, text: str) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.say("stubborn")
        while True:
            time.sleep(1000)

    def do_die(self, text: str) -> None:
        if text == "once" and self.session.get("resumed"):
            return
        sys.exit(3)


def main() -> None:
    manner = sys.argv[1] if len(sys.argv) > 1 else "plain"
    if manner == "banner":
        print("Welcome to the scripted agent!\n{not json}\n42", flush=True)
    if manner == "usage":
        print("usage: agent [--help]\nunknown option --acp", flush=True)
        sys.exit(2)
    Agent(manner).serve()


if __name__ == "__main__":
    main()
