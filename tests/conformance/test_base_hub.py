"""A Loopal hub joins our MetaHub: everything it sends and expects, line by line."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from loopal_cluster import (
    AgentContext,
    Decision,
    DeliveryFailed,
    HubNotConnected,
    Role,
    SpawnFailed,
    Timeouts,
    connect,
    open_hub,
    open_meta_hub,
)
from loopal_cluster.errors import RemoteError
from loopal_cluster.messages import Permission

from .lines import TIME, UUID, envelope, wrapped


async def test_joining_is_answered_byte_for_byte(connect_base):
    async with open_meta_hub(token="6f1d2c3b-4a59-4e68-8d77-9c0b1a2d3e4f") as meta_hub:
        async with connect_base(meta_hub.address) as hub:
            await hub.send(
                '{"id":1,"jsonrpc":"2.0","method":"meta/register","params":{"capabilities":[],'
                '"name":"hub-a","token":"6f1d2c3b-4a59-4e68-8d77-9c0b1a2d3e4f"}}'
            )
            assert await hub.line() == '{"id":1,"jsonrpc":"2.0","result":{"ok":true}}'

            await hub.notify("meta/heartbeat", {"agent_count": 1, "hub_name": "whatever"})
            hubs = await hub.call("meta/list_hubs", {})
            assert [(h["name"], h["status"], h["agent_count"], h["capabilities"]) for h in hubs["hubs"]] == [
                ("hub-a", "Connected", 1, [])
            ]


async def test_a_wrong_token_is_an_error_that_a_base_hub_understands(connect_base):
    async with open_meta_hub() as meta_hub, connect_base(meta_hub.address) as hub:
        params = {"capabilities": [], "name": "hub-a", "token": "nope"}

        assert await hub.call("meta/register", params) == "invalid token"
        assert await hub.is_closed()


async def test_a_taken_name_is_an_error_and_not_a_zombie(connect_base, join_base):
    async with open_meta_hub() as meta_hub, join_base(meta_hub, "hub-a"):
        async with connect_base(meta_hub.address) as second:
            params = {"capabilities": [], "name": "hub-a", "token": meta_hub.token}

            assert "taken" in await second.call("meta/register", params)
            assert await second.call("meta/register", {**params, "name": "hub-b"}) == {"ok": True}


async def test_the_name_of_a_base_hub_is_free_as_soon_as_it_is_gone(join_base):
    async with open_meta_hub() as meta_hub:
        async with join_base(meta_hub, "hub-a"):
            pass
        await trio.testing.wait_all_tasks_blocked(0.01)

        async with join_base(meta_hub, "hub-a"):
            pass


async def test_a_bare_name_is_asked_for_and_the_message_delivered(join_base):
    async with (
        open_meta_hub() as meta_hub,
        join_base(meta_hub, "hub-a") as a,
        join_base(meta_hub, "hub-b") as b,
    ):
        await a.send(
            '{"id":2,"jsonrpc":"2.0","method":"meta/route","params":{"content":{"text":"ping"},'
            f'"id":"{UUID}","source":{{"Agent":"main"}},"target":"worker","timestamp":"{TIME}"}}}}'
        )
        # The sender has looked at home already, so unlike Loopal's our MetaHub does not ask it again.
        assert await b.line() == (
            '{"id":1,"jsonrpc":"2.0","method":"meta/resolve","params":{"agent_name":"worker"}}'
        )
        await b.send('{"id":1,"jsonrpc":"2.0","result":{"found":true}}')
        delivered = await b.expect("agent/message", envelope("worker", {"Agent": "hub-a/main"}))
        assert delivered == 2
        await b.send('{"id":2,"jsonrpc":"2.0","result":{"ok":true}}')
        assert await a.line() == '{"id":2,"jsonrpc":"2.0","result":{"ok":true}}'

        # The second time the answer is known; and a qualified name was never asked for.
        for target in ("worker", "hub-b/worker"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(a.call, "meta/route", envelope(target, {"Agent": "main"}))
                # Loopal's ids and ours are both counted per connection.
                await b.answer(await b.expect("agent/message", {"target": "worker"}), {"ok": True})


async def test_a_message_goes_from_an_agent_of_ours_to_a_base_hub_and_back(join_base):
    async def talk(ctx: AgentContext, prompt: str) -> str:
        await ctx.send("base/worker", "ping")
        received = await ctx.receive()
        return f"{received.sender}: {received.text}"

    async with open_meta_hub() as meta_hub, join_base(meta_hub, "base") as base:
        async with open_hub(
            "ours", agents={"talk": talk}, join=meta_hub.address, meta_token=meta_hub.token
        ) as hub:
            async with hub.open_client() as client:
                agent = await client.spawn("talk", name="talker")
                request = await base.expect(
                    "agent/message", {"source": {"Agent": "ours/talker"}, "target": "worker"}
                )
                await base.answer(request, {"ok": True})
                # It is answered with the name that it was given.
                reply = envelope("ours/talker", {"Agent": "worker"}, "pong")
                assert await base.call("meta/route", reply) == {"ok": True}

                assert await agent.result() == "base/worker: pong"


async def test_a_base_hub_is_told_whether_an_agent_of_ours_is_there(join_base):
    async def wait(ctx: AgentContext, prompt: str) -> None:
        await trio.sleep_forever()

    async with open_meta_hub() as meta_hub, join_base(meta_hub, "base") as base:
        async with open_hub(
            "ours", agents={"wait": wait}, join=meta_hub.address, meta_token=meta_hub.token
        ) as hub:
            async with hub.open_client() as client:
                await client.spawn("wait", name="worker")
                await trio.testing.wait_all_tasks_blocked(0.01)

                found = await base.call("meta/resolve", {"agent_name": "worker"})
                assert found == {"found": True, "hub": "ours"}
                assert "not found on any hub of the cluster" in await base.call(
                    "meta/route", envelope("nobody")
                )
                assert await base.call("meta/route", envelope("nosuch/x")) == "hub 'nosuch' not connected"


async def test_not_ok_from_a_base_hub_is_a_failed_delivery(join_base):
    async with open_meta_hub() as meta_hub, join_base(meta_hub, "base") as base:
        async with connect(meta_hub.address, token=meta_hub.token) as client, trio.open_nursery() as nursery:

            @nursery.start_soon
            async def send() -> None:
                with pytest.raises(DeliveryFailed):
                    await client.send("base/nobody", "hi")

            await base.answer(await base.expect("agent/message", {"target": "nobody"}), {"ok": False})


async def test_a_base_hub_that_answers_one_request_at_a_time_gets_them_all(join_base):
    async with open_meta_hub() as meta_hub, join_base(meta_hub, "base") as base:
        async with connect(meta_hub.address, token=meta_hub.token) as client, trio.open_nursery() as nursery:
            for n in range(50):
                nursery.start_soon(client.send, "base/worker", str(n))

            texts = []
            for _ in range(50):
                request = await base.receive()
                texts.append(int(request["params"]["content"]["text"]))
                await base.answer(request["id"], {"ok": True})

    assert sorted(texts) == list(range(50))


async def test_a_base_hub_that_never_answers_is_a_deadline_and_no_more(join_base):
    timeouts = Timeouts(call_timeout=0.1, resolve_timeout=0.1, topology_timeout=0.1)
    async with open_meta_hub(timeouts=timeouts) as meta_hub:
        async with join_base(meta_hub, "dumb"), join_base(meta_hub, "base") as base:
            async with (
                connect(meta_hub.address, token=meta_hub.token) as client,
                trio.open_nursery() as nursery,
            ):

                @nursery.start_soon
                async def send_to_the_dumb_one() -> None:
                    with pytest.raises(RemoteError, match="no answer to agent/message in time"):
                        await client.send("dumb/x", "hi")

                nursery.start_soon(client.send, "worker", "hi")  # found, although one does not answer
                await base.answer(
                    await base.expect("meta/resolve", {"agent_name": "worker"}), {"found": True}
                )
                await base.answer(await base.expect("agent/message", {"target": "worker"}), {"ok": True})

            async with (
                connect(meta_hub.address, token=meta_hub.token) as client,
                trio.open_nursery() as nursery,
            ):

                @nursery.start_soon
                async def look() -> None:
                    by_hub = {part.hub: part for part in await client.topology()}
                    assert by_hub["dumb"].error == "timeout"
                    assert by_hub["base"].topology is not None

                await base.answer(await base.expect("hub/topology", {}), {"agents": []})


async def test_a_base_hub_gets_the_topology_of_the_cluster(join_base, includes):
    async with open_meta_hub() as meta_hub, join_base(meta_hub, "base") as base:
        async with open_hub("ours", join=meta_hub.address, meta_token=meta_hub.token):
            await base.send('{"id":7,"jsonrpc":"2.0","method":"meta/topology","params":{}}')
            node: dict[str, Any] = {
                "children": [],
                "lifecycle": "Spawning",
                "model": None,
                "name": "main",
                "parent": None,
            }
            await base.answer(await base.expect("hub/topology", {}), {"agents": [node]})

            answer = await base.receive()
            assert answer["id"] == 7
            by_hub = {part["hub"]: part["topology"] for part in answer["result"]["hubs"]}
            includes(by_hub, {"base": {"agents": [node]}, "ours": {"agents": []}})


async def test_a_base_hub_spawns_on_ours_and_gets_the_completion_in_the_only_form_it_knows(join_base):
    async def helper(ctx: AgentContext, prompt: str) -> str:
        return f"{prompt}: done"

    async with open_meta_hub() as meta_hub, join_base(meta_hub, "base") as base:
        async with open_hub(
            "ours",
            agents={"helper": helper},
            default_agent="helper",
            join=meta_hub.address,
            meta_token=meta_hub.token,
        ):
            params = {"cwd": "/nowhere/p", "model": "m", "name": "helper", "parent": "base/main"}
            params |= {"permission_mode": "bypass", "prompt": "do it", "target_hub": "ours"}
            spawned = await base.call("meta/spawn", params)
            assert spawned["name"] == "helper"
            assert "message" not in spawned

            completion = envelope("main", {"System": "agent-completed"}, wrapped("helper", "do it: done"))
            del completion["id"], completion["timestamp"]
            await base.answer(await base.expect("agent/message", completion), {"ok": True})


async def test_a_child_that_fails_is_no_success_to_a_base_hub_either(join_base):
    async def helper(ctx: AgentContext, prompt: str) -> str:
        raise ValueError("no such file")

    async with open_meta_hub() as meta_hub, join_base(meta_hub, "base") as base:
        async with open_hub(
            "ours", agents={"helper": helper}, join=meta_hub.address, meta_token=meta_hub.token
        ):
            params = {"name": "x", "agent_type": "helper", "parent": "base/main", "target_hub": "ours"}
            await base.call("meta/spawn", params)

            request = await base.receive()
            text = request["params"]["content"]["text"]
            assert text == wrapped("x", "[failed] ValueError: no such file")
            await base.answer(request["id"], {"ok": True})


async def test_a_refused_spawn_is_an_error_to_a_base_hub(join_base):
    async with open_meta_hub() as meta_hub, join_base(meta_hub, "base") as base:
        async with open_hub("ours", join=meta_hub.address, meta_token=meta_hub.token):
            params = {"name": "x", "parent": "base/main", "target_hub": "hub-x"}
            assert await base.call("meta/spawn", params) == "hub 'hub-x' not connected"
            assert "no agent type" in await base.call("meta/spawn", {**params, "target_hub": "ours"})
            del params["target_hub"]
            assert await base.call("meta/spawn", params) == "missing 'target_hub'"


async def test_an_agent_of_ours_spawns_on_a_base_hub_and_gets_the_result(join_base):
    async def lead(ctx: AgentContext, prompt: str) -> str:
        child = await ctx.spawn(None, prompt, hub="base", name="helper", model="m")
        return await child.result()

    async with open_meta_hub() as meta_hub, join_base(meta_hub, "base") as base:
        async with open_hub(
            "ours", agents={"lead": lead}, join=meta_hub.address, meta_token=meta_hub.token
        ) as hub:
            async with hub.open_client() as client:
                agent = await client.spawn("lead", "do it", name="main")
                expected = {"model": "m", "name": "helper", "parent": "ours/main", "prompt": "do it"}
                request = await base.expect_spawn(expected)
                await base.answer(request, {"agent_id": UUID, "name": "helper"})
                completion = envelope("ours/main", {"System": "agent-completed"}, wrapped("helper", "done"))
                assert await base.call("meta/route", completion) == {"ok": True}

                assert await agent.result() == "done"
                assert await client.local_agents() == ()


async def test_a_spawn_that_a_base_hub_refuses_is_refused(join_base):
    async with open_meta_hub() as meta_hub, join_base(meta_hub, "base") as base:
        async with open_hub("ours", join=meta_hub.address, meta_token=meta_hub.token) as hub:
            async with hub.open_client() as client, trio.open_nursery() as nursery:

                @nursery.start_soon
                async def spawn() -> None:
                    with pytest.raises(RemoteError, match="spawn failed: no such program"):
                        await client.spawn(None, "x", hub="base", name="helper")

                await base.refuse(await base.expect_spawn({}), "spawn failed: no such program")
            async with hub.open_client() as client:
                assert await client.local_agents() == ()
                with pytest.raises(HubNotConnected):
                    await client.spawn(None, "x", hub="gone")


async def test_an_error_dressed_as_a_result_is_an_error(join_base):
    async with open_meta_hub() as meta_hub, join_base(meta_hub, "base") as base:
        async with connect(meta_hub.address, token=meta_hub.token) as client, trio.open_nursery() as nursery:

            @nursery.start_soon
            async def spawn() -> None:
                with pytest.raises((RemoteError, SpawnFailed), match="agent/start failed"):
                    await client.spawn(None, "x", hub="base")

            result = {"code": -32600, "message": "spawn failed: agent/start failed"}
            await base.answer(await base.expect_spawn({}), result)


async def test_the_children_of_a_base_hub_that_is_gone_are_lost_and_their_remote_ones_stopped(join_base):
    ended = trio.Event()

    async def helper(ctx: AgentContext, prompt: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with open_meta_hub() as meta_hub:
        async with open_hub(
            "ours",
            agents={"helper": helper},
            join=meta_hub.address,
            meta_token=meta_hub.token,
            timeouts=Timeouts(stop_grace=0.1),
        ) as hub:
            async with hub.open_client() as client, join_base(meta_hub, "base") as base:
                async with trio.open_nursery() as nursery:

                    @nursery.start_soon
                    async def spawn() -> None:
                        nonlocal shadow  # type: ignore[misc]
                        shadow = await client.spawn(None, "x", hub="base", name="far")

                    shadow = None
                    request = await base.expect_spawn({"name": "far"})
                    await base.answer(request, {"agent_id": UUID, "name": "far"})
                params = {"name": "x", "agent_type": "helper", "parent": "base/main", "target_hub": "ours"}
                await base.call("meta/spawn", params)
                await base.aclose()

                assert shadow is not None
                assert (await shadow.outcome()).kind == "lost"
                await ended.wait()


@pytest.mark.parametrize("allow", [True, False])
async def test_a_permission_of_a_base_hub_is_answered_by_an_operator_of_the_meta_hub(join_base, allow):
    asked: list[Permission] = []

    async def judge(permission: Permission) -> Decision:
        asked.append(permission)
        return Decision(allow=allow)

    params = {"agent_name": "main", "tool_call_id": "toolu_01", "tool_input": {"command": "ls"}}
    params["tool_name"] = "Bash"
    async with open_meta_hub() as meta_hub, join_base(meta_hub, "base") as base:
        async with connect(meta_hub.address, token=meta_hub.token, role=Role.OPERATOR, on_permission=judge):
            decision = await base.call("agent/permission", params)

    assert decision["allow"] is allow
    assert "message" not in decision
    assert asked[0].agent_name == "base/main"


async def test_a_permission_of_a_base_hub_without_operators_is_denied_in_words(join_base):
    async with open_meta_hub(timeouts=Timeouts(permission_timeout=0.1)) as meta_hub:
        async with join_base(meta_hub, "base") as base:
            decision = await base.call("agent/permission", {"agent_name": "main", "tool_name": "Bash"})
            assert decision["allow"] is False
            assert "nobody was there to answer" in decision["reason"]

            # A denial does not parse as answers over there either; the words are what matters.
            assert "was there to answer" in await base.call("agent/question", {"questions": []})


async def test_events_of_a_base_hub_reach_the_watchers_of_the_meta_hub(join_base):
    async with open_meta_hub() as meta_hub, join_base(meta_hub, "base") as base:
        async with connect(meta_hub.address, token=meta_hub.token, role=Role.OBSERVER) as client:
            events = await client.subscribe()
            await base.notify("agent/event", {"agent_name": "main", "payload": {"Stream": {"text": "hi"}}})
            await base.notify("agent/event", {"agent_name": None, "payload": "NoSuchThing"})
            await base.notify("agent/event", {"payload": "Started"})

            first = await anext(events)
            assert (first.hub, first.agent, first.payload.text) == ("base", "main", "hi")


async def test_the_quirks_of_the_dialect_are_survived(connect_base):
    async with open_meta_hub() as meta_hub, connect_base(meta_hub.address) as hub:
        params = f'"params":{{"name":"base","token":"{meta_hub.token}","capabilities":["gpu"],"new":1}}'
        await hub.send("\r\n  \t\r")
        await hub.send(f'  {{"method":"meta/register","id":1,"unknown":[1],{params}}}\r')
        assert await hub.line() == '{"id":1,"jsonrpc":"2.0","result":{"ok":true}}'
        assert (await hub.call("meta/list_hubs", None))["hubs"][0]["capabilities"] == ["gpu"]
        assert await hub.call("meta/nope", {}) == "unknown meta method: meta/nope"
        assert await hub.call("meta/register", {"name": "x"}) != {"ok": True}
        assert "meta/heartbeat" in await hub.call("meta/heartbeat", {})
