"""Our hub in the cluster of a Loopal MetaHub: what it must send, and what it must survive."""

from __future__ import annotations

from contextlib import asynccontextmanager
from json import dumps
from typing import Any

import pytest
import trio
import trio.testing

from loopal_cluster import (
    AgentContext,
    ConnectionLost,
    HubNotConnected,
    InvalidRequest,
    NameTaken,
    RemoteError,
    Timeouts,
    open_hub,
)
from loopal_cluster.errors import ClusterError

from .lines import UUID, envelope, wrapped

TOKEN = "6f1d2c3b-4a59-4e68-8d77-9c0b1a2d3e4f"


@asynccontextmanager
async def joined(base, **settings):
    """Our hub ``hub-a`` and the base MetaHub's end of its uplink."""
    meta_hub = None

    async def admit() -> None:
        nonlocal meta_hub
        meta_hub = await base.admit("hub-a", TOKEN)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(admit)
        settings.setdefault("timeouts", Timeouts(stop_grace=0.1))
        async with open_hub("hub-a", join=base.address, meta_token=TOKEN, **settings) as hub:
            while meta_hub is None:
                await trio.testing.wait_all_tasks_blocked(0.01)
            yield hub, meta_hub


async def try_to_join(base, script, **settings) -> ClusterError:
    """Let ``script`` play the MetaHub; return why our hub did not join."""
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def play() -> None:
            await script(await base.accept())

        async with open_hub(
            "hub-a", join=base.address, meta_token=TOKEN, join_timeout=None, **settings
        ) as hub:
            await hub.until_answered()
            with pytest.raises(ClusterError) as refusal:
                await hub.until_joined(0)
        nursery.cancel_scope.cancel()
    return refusal.value


async def test_it_registers_first_and_nothing_else(serve_base):
    async with serve_base() as base:

        async def script(meta_hub) -> None:
            request_id = await meta_hub.expect(
                "meta/register", {"capabilities": ["gpu"], "name": "hub-a", "token": TOKEN}
            )
            assert request_id == 1
            with trio.move_on_after(0.05) as silence:
                await meta_hub.line()
            assert silence.cancelled_caught
            await meta_hub.refuse(request_id, "invalid token")

        refusal = await try_to_join(base, script, capabilities=["gpu"])

    assert "invalid token" in str(refusal)


async def test_a_name_clash_is_found_by_the_probe_that_a_zombie_never_answers(serve_base):
    async with serve_base() as base:

        async def script(meta_hub) -> None:
            await meta_hub.answer(await meta_hub.expect("meta/register", {}), {"ok": True})
            await meta_hub.expect("meta/list_hubs", {})  # and never a word again

        refusal = await try_to_join(base, script, timeouts=Timeouts(handshake_timeout=0.1))

    assert isinstance(refusal, NameTaken)
    assert "hub-a" in str(refusal)


async def test_a_list_of_hubs_without_us_is_a_name_clash_as_well(serve_base):
    async with serve_base() as base:

        async def script(meta_hub) -> None:
            await meta_hub.answer(await meta_hub.expect("meta/register", {}), {"ok": True})
            await meta_hub.answer(await meta_hub.expect("meta/list_hubs", {}), {"hubs": []})

        assert isinstance(await try_to_join(base, script), NameTaken)


@pytest.mark.parametrize("answer", [{"ok": False}, {}, None, "ok", {"ok": "yes"}])
async def test_an_answer_that_is_not_ok_is_not_taken_for_one(serve_base, answer):
    async with serve_base() as base:

        async def script(meta_hub) -> None:
            await meta_hub.answer(await meta_hub.expect("meta/register", {}), answer)
            await trio.sleep_forever()

        timeouts = Timeouts(handshake_timeout=0.1)
        assert isinstance(await try_to_join(base, script, timeouts=timeouts), (RemoteError, ConnectionLost))


async def test_it_sends_heartbeats_as_notifications(serve_base):
    async with serve_base() as base:
        timeouts = Timeouts(heartbeat_interval=0.05)
        async with joined(base, timeouts=timeouts) as (_, meta_hub):
            for _ in range(3):
                assert await meta_hub.line() == (
                    '{"jsonrpc":"2.0","method":"meta/heartbeat","params":{"agent_count":0,"hub_name":"hub-a"}}'
                )


async def quiet(ctx: AgentContext, prompt: str) -> str:
    """Says nothing, listens, and tells what it heard."""
    received = await ctx.receive()
    return f"{received.sender} said {received.text}"


async def next_request(meta_hub, method: str, params: dict[str, Any]) -> int:
    """The next request, past the events that our hub tells its MetaHub unasked (which is harmless)."""
    while True:
        line = await meta_hub.receive()
        if line.get("method") == "agent/event":
            assert "id" not in line
        elif line.get("method") != "meta/heartbeat":
            break
    assert line["method"] == method
    for key, value in params.items():
        assert line["params"][key] == value
    return line["id"]


async def answer_of(meta_hub) -> object:
    """The next answer, past the events."""
    while True:
        line = await meta_hub.receive()
        if "method" not in line:
            return line["error"]["message"] if "error" in line else line["result"]


async def ask(meta_hub, request_id: int, method: str, params: object) -> object:

    await meta_hub.send(dumps({"id": request_id, "jsonrpc": "2.0", "method": method, "params": params}))
    return await answer_of(meta_hub)


async def test_the_requests_of_the_meta_hub_are_answered_as_a_base_hub_does(serve_base):
    async with (
        serve_base() as base,
        joined(base, agents={"quiet": quiet}, default_agent="quiet") as (hub, meta_hub),
    ):
        async with hub.open_client() as client:
            worker = await client.spawn("quiet", name="worker")

            assert await ask(meta_hub, 1, "meta/resolve", {"agent_name": "worker"}) == {"found": True}
            assert await ask(meta_hub, 2, "meta/resolve", {"agent_name": "nobody"}) == {"found": False}
            topology = await ask(meta_hub, 3, "hub/topology", {})
            (node,) = topology["agents"]  # type: ignore[index]
            assert {key: node[key] for key in ("children", "lifecycle", "model", "name", "parent")} == {
                "children": [],
                "lifecycle": "Running",
                "model": None,
                "name": "worker",
                "parent": None,
            }
            delivered = await ask(meta_hub, 4, "agent/message", envelope("worker", {"Agent": "hub-b/boss"}))
            assert delivered == {"ok": True}
            assert await worker.result() == "hub-b/boss said ping"
            assert "nobody" in str(await ask(meta_hub, 5, "agent/message", envelope("nobody")))
            assert "unknown" in str(await ask(meta_hub, 6, "meta/register", {"name": "x"}))


async def test_a_notification_that_is_a_message_is_delivered(serve_base):
    async with serve_base() as base, joined(base, agents={"quiet": quiet}) as (hub, meta_hub):
        async with hub.open_client() as client:
            worker = await client.spawn("quiet", name="worker")
            await meta_hub.notify("agent/message", envelope("nobody"))
            await meta_hub.notify("agent/message", envelope("worker", {"Agent": "x"}))

            assert await worker.result() == "x said ping"


async def test_an_agent_routes_and_lists_hubs_through_it(serve_base):
    async def lead(ctx: AgentContext, prompt: str) -> str:
        await ctx.send("hub-b/worker", "ping")
        return ",".join(hub.name for hub in await ctx.list_hubs())

    async with serve_base() as base, joined(base, agents={"lead": lead}) as (hub, meta_hub):
        async with hub.open_client() as client:
            agent = await client.spawn("lead", name="main")
            # A base MetaHub does not say where a sender is, so our hub does.
            sender = {"Agent": "hub-a/main"}
            params = {"target": "hub-b/worker", "source": sender, "content": {"text": "ping"}}
            await meta_hub.answer(await next_request(meta_hub, "meta/route", params), {"ok": True})
            infos: list[Any] = [
                {"agent_count": 0, "capabilities": [], "name": name, "status": "Connected"}
                for name in ("hub-a", "hub-b")
            ]
            await meta_hub.answer(await next_request(meta_hub, "meta/list_hubs", {}), {"hubs": infos})

            assert await agent.result() == "hub-a,hub-b"


async def test_a_child_on_another_hub_is_spawned_waited_for_and_reported_in_the_base_flow(serve_base):
    async def lead(ctx: AgentContext, prompt: str) -> str:
        child = await ctx.spawn(None, prompt, hub="hub-b", name="helper", model="m")
        return await child.result()

    async with serve_base() as base, joined(base, agents={"lead": lead}) as (hub, meta_hub):
        async with hub.open_client() as client:
            agent = await client.spawn("lead", "do it", name="main")
            spec = {
                "name": "helper",
                "parent": "hub-a/main",
                "prompt": "do it",
                "target_hub": "hub-b",
                "model": "m",
            }
            request = await next_request(meta_hub, "meta/spawn", spec)
            await meta_hub.answer(request, {"agent_id": UUID, "name": "helper"})
            done = envelope("main", {"System": "agent-completed"}, wrapped("helper", "done"))
            assert await ask(meta_hub, 1, "agent/message", done) == {"ok": True}
            assert await agent.result() == "done"
            # Once only: nobody waits for a second one, and it settles nothing.
            assert "helper" in str(await ask(meta_hub, 2, "agent/message", done))


async def test_an_error_dressed_as_a_success_is_a_refused_spawn(serve_base):
    async with serve_base() as base, joined(base) as (hub, meta_hub):
        async with hub.open_client() as client, trio.open_nursery() as nursery:

            @nursery.start_soon
            async def spawn() -> None:
                with pytest.raises(RemoteError, match="response channel dropped"):
                    await client.spawn(None, "x", hub="hub-b", name="helper")

            request = await next_request(meta_hub, "meta/spawn", {"name": "helper"})
            text = "spawn failed: agent/start failed: agent/start failed: response channel dropped"
            await meta_hub.answer(request, {"code": -32600, "message": text})
        async with hub.open_client() as client:
            assert await client.local_agents() == ()


async def test_a_hub_that_is_not_connected_is_an_error_in_the_words_of_the_meta_hub(serve_base):
    async with serve_base() as base, joined(base) as (hub, meta_hub):
        async with hub.open_client() as client, trio.open_nursery() as nursery:

            @nursery.start_soon
            async def spawn() -> None:
                with pytest.raises(
                    (HubNotConnected, InvalidRequest, RemoteError), match="'hub-x' not connected"
                ):
                    await client.spawn(None, "x", hub="hub-x")

            await meta_hub.refuse(await next_request(meta_hub, "meta/spawn", {}), "hub 'hub-x' not connected")


async def test_a_child_for_a_parent_elsewhere_is_reported_by_a_message_through_it(serve_base):
    async def helper(ctx: AgentContext, prompt: str) -> str:
        assert ctx.cwd != "/home/u/p", "the caller's directory means nothing here"
        return f"{prompt}: done"

    settings = {"agents": {"helper": helper}, "default_agent": "helper"}
    async with serve_base() as base, joined(base, **settings) as (_, meta_hub):
        spec = {"cwd": "/home/u/p", "model": "m", "name": "helper", "parent": "hub-b/main"}
        spec |= {"permission_mode": "bypass", "prompt": "do it"}
        spawned = await ask(meta_hub, 1, "hub/spawn_agent", spec)
        assert spawned["name"] == "helper"  # type: ignore[index]

        report = {"source": {"System": "agent-completed"}, "target": "hub-b/main"}
        report["content"] = {"text": wrapped("helper", "do it: done")}
        await meta_hub.answer(await next_request(meta_hub, "meta/route", report), {"ok": True})
        with trio.move_on_after(0.1) as silence:
            await next_request(meta_hub, "meta/route", {})
        assert silence.cancelled_caught, "it was acknowledged"


async def test_a_permission_goes_up_with_the_name_of_who_asks(serve_base):
    async def careful(ctx: AgentContext, prompt: str) -> bool:
        return (await ctx.ask_permission("Bash", {"command": "ls"}, tool_call_id="toolu_01")).allow

    async with serve_base() as base, joined(base, agents={"careful": careful}) as (hub, meta_hub):
        async with hub.open_client() as client:
            agent = await client.spawn("careful", name="main")
            params = {"agent_name": "main", "tool_call_id": "toolu_01", "tool_input": {"command": "ls"}}
            request = await next_request(meta_hub, "agent/permission", {**params, "tool_name": "Bash"})
            await meta_hub.answer(request, {"allow": False})

            assert await agent.result() == "false"


@pytest.mark.parametrize("answer", [{}, {"allow": "yes"}, {"allow": None}, None, {"allow": 1}])
async def test_a_permission_answered_by_nonsense_is_never_an_allow(serve_base, answer):
    async def careful(ctx: AgentContext, prompt: str) -> bool:
        return (await ctx.ask_permission("Bash")).allow

    timeouts = Timeouts(permission_timeout=0.1, stop_grace=0.1)
    async with serve_base() as base:
        async with joined(base, agents={"careful": careful}, timeouts=timeouts) as (hub, meta_hub):
            async with hub.open_client() as client:
                agent = await client.spawn("careful")
                await meta_hub.answer(await next_request(meta_hub, "agent/permission", {}), answer)

                assert await agent.result() == "false"


async def test_nonsense_from_the_meta_hub_is_survived(serve_base):
    async with serve_base() as base, joined(base) as (hub, meta_hub):
        await meta_hub.send("rubbish")
        assert "not JSON" in str(await answer_of(meta_hub))
        await meta_hub.send('{"id":77,"jsonrpc":"2.0","result":{"ok":true}}')
        await meta_hub.send('{"error":{"code":1},"id":78,"jsonrpc":"2.0"}')
        async with hub.open_client() as client, trio.open_nursery() as nursery:

            @nursery.start_soon
            async def list_hubs() -> None:
                with pytest.raises(RemoteError, match="malformed error"):
                    await client.list_hubs()

            request = await next_request(meta_hub, "meta/list_hubs", {})
            await meta_hub.send(f'{{"error":{{"code":1}},"id":{request},"jsonrpc":"2.0"}}')
