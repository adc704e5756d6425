"""``loopal-cluster mcp``: what is wrong is said on stderr, and what is printed is the protocol."""

from __future__ import annotations

import json
import signal

from loopal_cluster import open_hub

from .conftest import Program


def line(**message: object) -> str:
    return json.dumps({"jsonrpc": "2.0"} | message) + "\n"


INITIALIZE = line(
    id=1,
    method="initialize",
    params={"protocolVersion": "2025-06-18", "clientInfo": {"name": "Ed", "version": "1"}},
)


async def test_wrong_usage_is_one_line_and_status_2(program: Program):
    for options, text in (
        (["--connect", "nowhere"], "error: 'nowhere' is not HOST:PORT"),
        (["--name", "no spaces"], "error: name 'no spaces' is not 1 to 64 of"),
    ):
        done = await program.run("mcp", *options)

        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(text)
        assert done.stderr.count("\n") == 1


async def test_without_a_hub_it_serves_and_says_why_nothing_works(program: Program):
    async with program.start("mcp") as running:
        await running.types(INITIALIZE + line(method="notifications/initialized"))
        await running.says('"serverInfo"', on="out")
        await running.types(line(id=2, method="tools/call", params={"name": "ListHubs"}))
        said = await running.says('"isError":true', on="out")
        await running.ends_input()

        assert "no connection to the hub: no hub runs here: start one with 'loopal-cluster hub'" in said
        assert await running.ends() == 0
        assert running.err == ""
        assert all(json.loads(text)["jsonrpc"] == "2.0" for text in running.out.splitlines())


async def test_a_signal_ends_it_and_what_it_has_started(program: Program):
    socket = f"unix:{program.directory}/hub.sock"

    async def linger(ctx: object, prompt: str) -> None:
        import trio

        await trio.sleep_forever()

    async with open_hub("solo", agents={"linger": linger}, token="sesame", listen=[socket]) as hub:
        async with hub.open_client() as client:
            arguments = {"prompt": "", "subagent_type": "linger", "name": "x", "run_in_background": True}
            call = line(id=2, method="tools/call", params={"name": "Agent", "arguments": arguments})
            environment = {"LOOPAL_META_HUB_TOKEN": "sesame"}
            async with program.start("mcp", "--connect", socket, "--name", "ann", **environment) as running:
                await running.types(INITIALIZE + call)
                await running.says('"status":"running"', on="out")
                assert [agent.name for agent in await client.local_agents()] == ["ann", "x"]

                running.process.send_signal(signal.SIGTERM)
                await running.ends()
            await client.wait("x")
            assert await client.local_agents() == ()


async def test_a_bridge_that_the_hub_does_not_let_in_says_so(program: Program):
    environment = {"LOOPAL_MCP_SOCKET": f"{program.directory}/none.sock", "LOOPAL_MCP_TOKEN": "guessed"}

    done = await program.run("mcp", **environment)

    assert (done.returncode, done.stdout) == (4, "")
    assert (
        done.stderr
        == f"error: cannot reach the hub at {environment['LOOPAL_MCP_SOCKET']}: No such file or directory\n"
    )
