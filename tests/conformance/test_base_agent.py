"""A Loopal agent process on our hub, our agent under a Loopal host, and a TCP client of our hub."""

from __future__ import annotations

import json
import subprocess
import sys

import trio

from loopal_cluster import Decision, ProcessAgent, Role, Timeouts, open_hub

# A real agent, reduced to its lines: it answers, works when it is spoken to, and lingers at the end.
SCRIPT = r"""
import json, sys

def say(line):
    print(json.dumps(line, sort_keys=True, separators=(",", ":")), flush=True)

def event(payload):
    say({"jsonrpc": "2.0", "method": "agent/event", "params": {"agent_name": None, "payload": payload}})

for line in sys.stdin:
    request = json.loads(line)
    print(line.strip(), file=sys.stderr, flush=True)
    method, params = request.get("method"), request.get("params")
    assert request["jsonrpc"] == "2.0" and "params" in request or method is None
    if method == "initialize":
        assert params == {"protocol_version": 1} and request["id"] == 1
        info = {"name": "loopal", "version": "0.0.0"}
        say({"id": 1, "jsonrpc": "2.0", "result": {"agent_info": info, "protocol_version": 1}})
    elif method == "agent/start":
        base = ("cwd", "lifecycle", "mode", "model", "no_sandbox", "permission_mode", "prompt", "resume")
        assert all(key in params for key in base), params
        say({"id": 2, "jsonrpc": "2.0", "result": {"session_id": "5d0f3a52-0b0e-4a0e-8a8f-1e2f3a4b5c6d"}})
        event("Started")
        say({"id": 1, "jsonrpc": "2.0", "method": "agent/permission", "params":
            {"tool_call_id": "toolu_01", "tool_input": {"command": "ls"}, "tool_name": "Bash"}})
    elif method is None and request["id"] == 1:
        assert request["result"]["allow"] is True, request
        event("AwaitingInput")
    elif method == "agent/control":
        assert params == "Clear"
        say({"id": request["id"], "jsonrpc": "2.0", "result": {"ok": True}})
    elif method == "agent/message":
        say({"id": request["id"], "jsonrpc": "2.0", "result": {"ok": True}})
        event({"Stream": {"text": "Hello"}})
        event("Finished")
        text = params["content"]["text"]
        say({"jsonrpc": "2.0", "method": "agent/completed", "params": {"reason": "goal", "result": text}})
"""


async def test_our_hub_hosts_a_base_agent_from_its_start_to_its_end():
    agents = {"base": ProcessAgent((sys.executable, "-c", SCRIPT))}
    timeouts = Timeouts(stop_grace=1.0)

    async def allow(permission) -> Decision:
        assert permission.agent_name == "main"
        return Decision(allow=True)

    async with open_hub("h", agents=agents, timeouts=timeouts) as hub:
        operator = hub.open_client(role=Role.OPERATOR, on_permission=allow)
        async with hub.open_client() as client, operator as watcher:
            events = await watcher.subscribe()
            agent = await client.spawn("base", name="main", persistent=True)
            async for event in events:
                if event.payload.__class__.__name__ == "AwaitingInput":
                    assert event.agent == "main"
                    break
            await client.control("main", "Clear")
            await client.send("main", "hi")

            assert await agent.result() == "hi"


async def serve(function: str):
    code = f"from loopal_cluster import serve_agent\n{function}\nserve_agent(agent)"
    return await trio.lowlevel.open_process(
        [sys.executable, "-c", code, "--serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": "/usr/bin"},
    )


START = (
    '{"id":2,"jsonrpc":"2.0","method":"agent/start","params":{"cwd":"/","lifecycle":LIFECYCLE,"mode":"act",'
    '"model":"m","no_sandbox":false,"permission_mode":null,"prompt":PROMPT,"resume":null}}'
)


def start(lifecycle: str | None, prompt: str | None) -> str:
    return START.replace("LIFECYCLE", json.dumps(lifecycle)).replace("PROMPT", json.dumps(prompt))


async def greet(host) -> None:
    await host.send('{"id":1,"jsonrpc":"2.0","method":"initialize","params":{"protocol_version":1}}')
    answer = await host.receive()
    assert answer["id"] == 1
    assert answer["result"]["protocol_version"] == 1


async def test_our_agent_does_its_work_under_a_base_host_and_exits_by_itself(host_of, includes):
    process = await serve("async def agent(ctx, prompt):\n    print('stray')\n    return prompt.upper()")
    async with host_of(process) as host:
        await greet(host)
        await host.send(start("ephemeral", "do it"))
        answer = await host.receive()
        assert answer["id"] == 2
        assert isinstance(answer["result"]["session_id"], str)
        said = [await host.receive() for _ in range(3)]

        includes(said[0], {"method": "agent/event", "params": {"agent_name": None, "payload": "Started"}})
        includes(said[1], {"method": "agent/event", "params": {"agent_name": None, "payload": "Finished"}})
        completed = {"method": "agent/completed", "params": {"reason": "goal", "result": "DO IT"}}
        assert said[2] == {"jsonrpc": "2.0", **completed}
        assert await process.wait() == 0


async def test_our_persistent_agent_under_a_base_host_works_for_every_message(host_of, includes):
    process = await serve("async def agent(ctx, prompt):\n    return prompt.upper()")
    async with host_of(process) as host:
        await greet(host)
        message = (
            '{"id":ID,"jsonrpc":"2.0","method":"agent/message","params":{"content":{"text":"hi"},'
            '"id":"0b8f6f0e-5c1e-4d55-9a5e-2f3a1f6f0a11","source":"Human","target":"main",'
            '"timestamp":"2026-04-02T09:42:12.123456789Z"}}'
        )
        await host.send(message.replace("ID", "9"))
        includes(
            await host.receive(), {"id": 9, "error": {"code": -32601, "message": "expected agent/start"}}
        )
        await host.send(start(None, None))
        await host.expect_all({"id": 2}, event("Started"), event("AwaitingInput"))
        await host.send(message.replace("ID", "3"))
        await host.expect_all(
            {"id": 3, "result": {"ok": True}}, event({"Stream": {"text": "HI"}}), event("AwaitingInput")
        )
        await host.send('{"jsonrpc":"2.0","method":"agent/interrupt","params":{}}')
        await host.send('{"id":4,"jsonrpc":"2.0","method":"agent/status","params":{}}')
        while (line := await host.receive()).get("id") != 4:
            pass
        includes(line, {"error": {"code": -32601, "message": "unknown: agent/status"}})
        await host.send('{"id":5,"jsonrpc":"2.0","method":"agent/shutdown","params":{}}')
        while (line := await host.receive()).get("method") != "agent/completed":
            pass
        assert line["params"] == {"reason": "shutdown", "result": None}
        assert await process.wait() == 0


async def test_our_agent_ends_when_its_base_host_is_gone(host_of):
    process = await serve("import trio\nasync def agent(ctx, prompt):\n    await trio.sleep_forever()")
    async with host_of(process) as host:
        await greet(host)
        await host.send(start("ephemeral", "x"))
        await host.receive()

    assert await process.wait() == 0


async def test_our_agent_spawns_through_a_base_hub_and_is_not_misled_by_its_answers(host_of):
    process = await serve(
        "async def agent(ctx, prompt):\n"
        "    child = await ctx.spawn(None, 'x', name='helper')\n"
        "    return (await ctx.wait_once('helper', seconds=5)).output"
    )
    async with host_of(process) as host:
        await greet(host)
        await host.send(start("ephemeral", "x"))
        await host.receive()
        await host.receive()
        await host.answer(
            await host.expect("hub/spawn_agent", {"name": "helper"}), {"agent_id": "1", "name": "helper"}
        )
        await host.answer(await host.expect("hub/wait_agent", {"name": "helper"}), {"output": "done"})
        await host.receive()
        completed = await host.receive()

    assert completed["params"]["result"] == "done"


def event(payload: object) -> dict[str, object]:
    return {"method": "agent/event", "params": {"agent_name": None, "payload": payload}}


async def test_a_tcp_client_of_a_hub_registers_and_is_an_agent(connect_base, includes):
    token = "6f1d2c3b-4a59-4e68-8d77-9c0b1a2d3e4f"
    async with open_hub("h", listen=["127.0.0.1:0"], token=token) as hub:
        async with connect_base(hub.addresses[0]) as ext, hub.open_client() as client:
            assert await ext.call("hub/status", {}) == "expected hub/register first"
            await ext.send(
                f'{{"id":2,"jsonrpc":"2.0","method":"hub/register","params":{{"name":"ext","token":"{token}"}}}}'
            )
            assert await ext.line() == '{"id":2,"jsonrpc":"2.0","result":{"ok":true}}'
            await ext.send('{"id":3,"jsonrpc":"2.0","method":"foo/bar","params":null}')
            includes(await ext.receive(), {"error": {"code": -32601, "message": "unknown: foo/bar"}, "id": 3})
            await ext.send('{"id":4,"jsonrpc":"2.0","method":"hub/nope","params":{}}')
            includes(
                await ext.receive(),
                {"error": {"message": "unknown hub method: hub/nope"}, "id": 4},
            )

            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.send, "ext", "hi")
                request = await ext.expect("agent/message", {"target": "ext", "source": "Human"})
                await ext.answer(request, {"ok": True})
            ext._last_id = 10
            assert (await ext.call("hub/list_agents", {}))["agents"] == ["ext"]
            includes(await ext.call("hub/status", None), {"agent_count": 1, "uplink": None})
            await ext.notify("agent/completed", {"reason": "goal", "result": "bye"})

            assert (await client.wait("ext")).result == "bye"


async def test_a_tcp_client_with_a_taken_name_is_told_so(connect_base):
    async with open_hub("h", listen=["127.0.0.1:0"], token="t") as hub:
        async with connect_base(hub.addresses[0]) as one, connect_base(hub.addresses[0]) as two:
            assert await one.call("hub/register", {"name": "ext", "token": "t"}) == {"ok": True}

            assert "taken" in await two.call("hub/register", {"name": "ext", "token": "t"})
            assert await two.call("hub/register", {"name": "ext-2", "token": "t"}) == {"ok": True}
