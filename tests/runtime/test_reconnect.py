"""Links break, hubs and MetaHubs come and go: what comes back is whole, and what does not is lost in words."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
import trio.testing

from loopal_cluster import (
    AgentContext,
    ConnectionLost,
    DeadlineExceeded,
    ErrorCode,
    HubNotConnected,
    NameTaken,
    Role,
    Timeouts,
    Unauthorized,
    open_hub,
    open_meta_hub,
)
from loopal_cluster.core.parties import PROTOCOL
from loopal_cluster.frames import Request, Response
from loopal_cluster.links.channels import FrameChannel
from loopal_cluster.messages import RegisterHub, Welcome
from loopal_cluster.payloads import HubAway, HubJoined
from loopal_cluster.testing import byte_pair, open_test_cluster, record_pair

TOKEN = "the-token"


class Bench:
    """Agents whose end is in the test's hands."""

    def __init__(self) -> None:
        self.may_end = trio.Event()
        self.received: list[str] = []
        self.cancelled: list[str] = []

    async def work(self, ctx: AgentContext, prompt: str) -> str:
        try:
            await self.may_end.wait()
        except trio.Cancelled:
            self.cancelled.append(ctx.address)
            raise
        return f"{prompt} on {ctx.hub}"

    async def listen(self, ctx: AgentContext, prompt: str) -> None:
        while True:
            self.received.append((await ctx.receive()).text)

    async def lead(self, ctx: AgentContext, prompt: str) -> str:
        """Spawn on the hub of the prompt, and wait."""
        child = await ctx.spawn("work", "work", hub=prompt, name="child")
        return (await child.outcome()).kind

    async def delegate(self, ctx: AgentContext, prompt: str) -> str:
        """Spawn on the hub of the prompt, and take the result as a message."""
        await ctx.spawn("work", "work", hub=prompt, name="child", notify_parent=True)
        first = (await ctx.receive()).text
        with trio.move_on_after(0.5):
            return f"{first} and again {(await ctx.receive()).text}"
        return first

    @property
    def agents(self):
        return {"work": self.work, "listen": self.listen, "lead": self.lead, "delegate": self.delegate}


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def settled() -> None:
    """Until nothing more happens by itself at this instant."""
    await trio.testing.wait_all_tasks_blocked()


async def statuses(client) -> dict[str, str]:
    return {hub.name: hub.status for hub in await client.list_hubs()}


@pytest.mark.parametrize("pair", [record_pair, byte_pair])
async def test_a_hub_whose_link_is_cut_joins_again_by_itself_and_nothing_is_lost(pair, bench, autojump_clock):
    async with open_test_cluster(2, agents=bench.agents, pair=pair) as cluster:
        async with cluster["hub-a"].open_client() as client:
            chief = await client.spawn("lead", "hub-b", name="chief")
            await settled()
            for name in ("hub-b", "hub-a", "hub-b"):
                await cluster.cut(name)
                await trio.sleep(1.0)
                assert await statuses(client) == {"hub-a": "Connected", "hub-b": "Connected"}

            bench.may_end.set()
            assert await chief.result() == "done"
            assert bench.cancelled == []


async def test_a_hub_that_loses_its_meta_hub_says_so_once_however_often_it_dials(caplog, autojump_clock):
    async with open_test_cluster(1) as cluster:
        cluster.isolate()
        await cluster.cut("hub-a")
        await trio.sleep(20.0)
        cluster.isolate(reachable=True)
        await trio.sleep(1.0)

    said = [record.message for record in caplog.records if record.name.endswith(("runtime.hub", "hub-a"))]
    assert [line for line in said if "MetaHub: " in line or "again" in line] == [
        "lost the MetaHub: broken connection; dialling again",
        "joined the cluster again as 'hub-a'",
    ]


async def test_a_hub_that_is_away_for_an_instant_is_shown_so_and_its_messages_wait_for_it(
    bench, autojump_clock
):
    async with open_test_cluster(2, agents=bench.agents) as cluster:
        async with cluster["hub-a"].open_client() as client, trio.open_nursery() as nursery:
            async with cluster["hub-b"].open_client() as far:
                await far.spawn("listen", name="ear", detached=True)
            cluster.isolate()
            await cluster.cut("hub-b")
            await settled()

            assert await statuses(client) == {"hub-a": "Connected", "hub-b": "Disconnected"}
            nursery.start_soon(client.send, "hub-b/ear", "hi")
            await settled()
            assert bench.received == []
            cluster.isolate(reachable=True)
            await trio.sleep(0.7)
            assert await statuses(client) == {"hub-a": "Connected", "hub-b": "Connected"}
            assert bench.received == ["hi"]


@pytest.mark.parametrize("outage", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
async def test_a_fleet_that_is_cut_off_for_less_than_its_places_are_kept_loses_no_hub(
    outage, bench, autojump_clock
):
    async with open_test_cluster(20, agents=bench.agents) as cluster:
        async with cluster.meta_hub.open_client(role=Role.OBSERVER) as client:
            events, seen = await client.subscribe(), []
            cluster.isolate()
            for name in cluster.hubs:
                await cluster.cut(name)
            with trio.move_on_after(2.0):
                await trio.sleep(outage)
                cluster.isolate(reachable=True)
                async for event in events:
                    seen.append(type(event.payload))

        assert sorted(seen, key=repr) == [HubAway] * 20 + [HubJoined] * 20


@pytest.mark.limit(200.0)
@pytest.mark.parametrize("outage", [1.0, 2.0, 10.0, 100.0])
async def test_a_fleet_is_back_a_second_after_its_meta_hub_is(outage, autojump_clock):
    async with open_test_cluster(20) as cluster:
        cluster.isolate()
        for name in cluster.hubs:
            await cluster.cut(name)
        await trio.sleep(outage)
        cluster.isolate(reachable=True)

        with trio.fail_after(1.0):
            await joined_again(*cluster.hubs.values())


async def test_a_hub_that_is_away_for_too_long_is_not_waited_for(bench, autojump_clock):
    async with open_test_cluster(2, agents=bench.agents) as cluster:
        async with cluster["hub-a"].open_client() as client:
            cluster.isolate()
            await cluster.cut("hub-b")
            await settled()
            began = trio.current_time()

            with pytest.raises(ConnectionLost):
                await client.send("hub-b/x", "hi")
            assert trio.current_time() - began <= 1.0
            with pytest.raises(HubNotConnected):
                await client.send("hub-b/x", "hi")


async def test_the_directory_is_whole_again_after_a_reconnect(bench, autojump_clock):
    async with open_test_cluster(2, agents=bench.agents) as cluster:
        async with cluster["hub-a"].open_client() as near, cluster["hub-b"].open_client() as far:
            await far.spawn("listen", name="old")
            cluster.isolate()
            await cluster.cut("hub-b")
            gone = await far.spawn("work", name="gone")
            await far.spawn("listen", name="new")
            await gone.cancel()
            cluster.isolate(reachable=True)
            await trio.sleep(0.7)

            await near.send("old", "one")
            await near.send("new", "two")
            with pytest.raises(Exception, match="'gone' not found"):
                await near.send("gone", "three")
            assert bench.received == ["one", "two"]


@pytest.mark.parametrize("away", ["hub-a", "hub-b"])
async def test_a_completion_while_a_link_on_its_way_is_down_arrives_exactly_once(away, bench, autojump_clock):
    async with open_test_cluster(2, agents=bench.agents) as cluster:
        async with cluster["hub-a"].open_client() as client:
            chief = await client.spawn("delegate", "hub-b", name="chief")
            await settled()
            cluster.isolate()
            await cluster.cut(away)
            bench.may_end.set()
            await settled()
            cluster.isolate(reachable=True)

            assert await chief.result() == '<agent-result name="child">\nwork on hub-b\n</agent-result>'


async def test_a_hub_that_does_not_come_back_is_lost_to_those_who_wait_for_its_agents(bench, autojump_clock):
    async with open_test_cluster(2, agents=bench.agents) as cluster:
        async with cluster["hub-a"].open_client() as client:
            chief = await client.spawn("lead", "hub-b", name="chief")
            await settled()
            cluster.isolate()
            began = trio.current_time()
            await cluster.cut("hub-b")

            assert await chief.result() == "lost"
            assert trio.current_time() - began <= 1.0
            assert await client.local_agents() == ()
            assert await statuses(client) == {"hub-a": "Connected"}


async def test_the_children_of_a_lost_parent_are_cancelled(bench, autojump_clock):
    async with open_test_cluster(2, agents=bench.agents, timeouts=Timeouts(stop_grace=0.1)) as cluster:
        async with cluster["hub-a"].open_client() as client:
            await client.spawn("lead", "hub-b", name="chief")
            await settled()
            cluster.isolate()
            await cluster.cut("hub-a")
            await trio.sleep(1.0)

            assert bench.cancelled == ["hub-b/child"]


@pytest.mark.limit(200.0)
async def test_a_silent_hub_is_suspect_then_lost_and_hung_up_on(autojump_clock):
    async with open_meta_hub(None, token=TOKEN) as meta_hub:
        ours, theirs = record_pair()
        meta_hub.attach(theirs)

        ours.send_nowait([Request(1, RegisterHub("silent", TOKEN, instance="i"))])
        await ours.receive()
        seen = []
        async with meta_hub.open_client(role=Role.OBSERVER) as client:
            for at in (29.0, 31.0, 89.0, 91.0):
                await trio.sleep(at - trio.current_time())
                seen.append((await statuses(client)).get("silent"))

        assert seen == ["Connected", "Degraded", "Degraded", None]
        with pytest.raises(trio.EndOfChannel):
            await ours.receive()
        await ours.aclose()


@pytest.mark.limit(1000000.0)
async def test_heartbeats_keep_an_idle_cluster_alive_for_hours(autojump_clock):
    async with open_test_cluster(2) as cluster, cluster["hub-a"].open_client() as client:
        for _ in range(5):
            await trio.sleep(3600.0)
            assert await statuses(client) == {"hub-a": "Connected", "hub-b": "Connected"}


async def test_hubs_join_a_meta_hub_that_was_restarted_and_everything_is_known_again(bench):
    timeouts = Timeouts(redial_delay=0.02, redial_delay_max=0.05, stop_grace=0.2)
    common = {"agents": bench.agents, "meta_token": TOKEN, "timeouts": timeouts}
    async with trio.open_nursery() as nursery:
        first = await nursery.start(run_meta_hub, "127.0.0.1:0")
        address = first.meta_hub.address
        async with (
            open_hub("hub-a", join=address, **common) as hub,
            open_hub("hub-b", join=address, **common) as other,
        ):
            async with hub.open_client() as client, other.open_client() as far:
                chief = await client.spawn("delegate", "hub-b", name="chief")
                await far.spawn("listen", name="ear")
                first.scope.cancel()
                await first.closed.wait()
                bench.may_end.set()  # so the outcome is there while nobody can take it
                await trio.sleep(0.05)
                again = await nursery.start(run_meta_hub, address)

                with trio.fail_after(5.0):
                    await joined_again(hub, other)
                    assert (
                        await chief.result() == '<agent-result name="child">\nwork on hub-b\n</agent-result>'
                    )
                    assert sorted(h.name for h in await client.list_hubs()) == ["hub-a", "hub-b"]
                await client.send("ear", "found")
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert bench.received == ["found"]
            again.scope.cancel()


async def joined_again(*hubs) -> None:
    for hub in hubs:
        await hub._runtime.until(lambda hub=hub: hub.core.uplink.joined)


class Running:
    def __init__(self, meta_hub, scope: trio.CancelScope) -> None:
        self.meta_hub = meta_hub
        self.scope = scope
        self.closed = trio.Event()


async def run_meta_hub(bind: str, task_status=trio.TASK_STATUS_IGNORED) -> None:
    with trio.CancelScope() as scope:
        async with open_meta_hub(bind, token=TOKEN) as meta_hub:
            running = Running(meta_hub, scope)
            task_status.started(running)
            await trio.sleep_forever()
    running.closed.set()


@pytest.mark.limit(200.0)
async def test_a_hub_keeps_its_agents_while_a_meta_hub_refuses_it_and_is_back_when_it_does_not(
    bench, caplog, autojump_clock
):
    async with (
        open_meta_hub(None, token=TOKEN) as right,
        open_meta_hub(None, token="another") as wrong,
    ):
        target, links, dials = right, [], []

        async def dial():
            ours, theirs = record_pair()
            target.attach(theirs)
            links.append(ours)
            dials.append(trio.current_time())
            return ours

        async with (
            open_hub("hub-a", join=dial, meta_token=TOKEN, agents=bench.agents) as hub,
            hub.open_client() as client,
        ):
            agent = await client.spawn("work", "it")
            target = wrong
            await trio.aclose_forcefully(links[0])
            await trio.sleep(100.0)
            absence = hub.absence
            target, tried = right, len(dials)
            with trio.fail_after(10.0):
                await hub.until_joined()
            bench.may_end.set()

            assert await agent.result() == "it on hub-a"
    assert (absence.refusal, absence.reason) == (
        ErrorCode.UNAUTHORIZED,
        "the MetaHub refuses this hub: invalid token",
    )
    assert tried < 40
    said = [record.message for record in caplog.records if record.name.endswith("runtime.hub")]
    assert said == [
        "lost the MetaHub: broken connection; dialling again",
        "not joined (its MetaHub): the MetaHub refuses this hub: invalid token; dialling again",
        "joined the cluster again as 'hub-a'",
    ]


async def test_a_hub_that_starts_before_its_meta_hub_joins_when_that_is_there(autojump_clock):
    async with open_meta_hub(None, token=TOKEN) as meta_hub:

        async def dial():
            if trio.current_time() < began + 15.0:
                raise ConnectionLost("nobody there")
            ours, theirs = record_pair()
            meta_hub.attach(theirs)
            return ours

        began = trio.current_time()
        async with open_hub("hub-a", join=dial, meta_token=TOKEN):
            assert 15.0 <= trio.current_time() - began <= 16.0


@pytest.mark.parametrize(("token", "error"), [("wrong", Unauthorized), (TOKEN, ConnectionLost)])
async def test_a_program_whose_hub_has_not_joined_in_time_is_told_why(token, error, autojump_clock):
    async with open_meta_hub(None, token=TOKEN) as meta_hub:

        async def dial():
            if token == TOKEN:
                raise ConnectionLost("nobody there")
            ours, theirs = record_pair()
            meta_hub.attach(theirs)
            return ours

        began = trio.current_time()
        with pytest.raises(error):
            async with open_hub("hub-a", join=dial, meta_token=token):
                raise AssertionError("it joined")
        assert trio.current_time() - began == pytest.approx(20.0)


async def test_a_hub_with_all_the_time_to_join_begins_at_once_and_says_that_it_has_not(autojump_clock):
    async def dial():
        raise ConnectionLost("nobody there")

    async with open_hub("hub-a", join=dial, join_timeout=None) as hub:
        first = (hub.joined, hub.absence)
        await hub.until_answered()

        assert first == (False, None)
        assert (hub.joined, hub.absence.reason) == (False, "nobody there")


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (OSError("no such file"), "cannot read the tokens: no such file"),
        ((), "there is no token: none was given"),
        (("",), "there is no token: none was given"),
    ],
)
async def test_a_function_that_gives_no_token_for_a_while_ends_no_hub_and_no_meta_hub(
    trouble, reason, autojump_clock
):
    given: list[object] = [(TOKEN,)]
    links: list[FrameChannel] = []

    def tokens():
        if isinstance(given[-1], OSError):
            raise given[-1]
        return given[-1]

    async with open_meta_hub(None, token=tokens) as meta_hub:

        async def dial():
            ours, theirs = record_pair()
            meta_hub.attach(theirs)
            links.append(ours)
            return ours

        given.append(trouble)
        async with open_hub("hub-b", join=dial, meta_token=TOKEN):  # whose MetaHub goes on with what it had
            given.append((TOKEN,))
            async with open_hub("hub-a", join=dial, meta_token=tokens) as hub:
                given.append(trouble)
                await trio.aclose_forcefully(links[-1])
                await trio.sleep(10.0)
                away = hub.absence
                given.append((TOKEN,))
                await hub.until_joined(1.0)

    assert away is not None
    assert away.reason == reason


async def test_a_hub_that_closes_in_peace_is_gone_at_once_and_nobody_waits_for_it(
    bench, caplog, autojump_clock
):
    async with open_test_cluster(("hub-a",), agents=bench.agents) as cluster:

        async def dial():
            return await cluster.dial("hub-b")

        async with cluster["hub-a"].open_client() as client:
            common = {"join": dial, "meta_token": cluster.meta_hub.token, "agents": bench.agents}
            for _ in range(2):  # the name is free at once
                async with open_hub("hub-b", **common):
                    chief = await client.spawn("lead", "hub-b")
                    await settled()
                began = trio.current_time()

                assert await statuses(client) == {"hub-a": "Connected"}
                assert await chief.result() == "cancelled"
                assert trio.current_time() == began

    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []


async def test_a_hub_that_is_closed_in_a_hurry_does_not_say_that_it_dials_again(caplog, autojump_clock):
    async with open_test_cluster(("hub-a",)) as cluster:

        async def dial():
            return await cluster.dial("hub-b")

        with trio.CancelScope() as scope:
            async with open_hub("hub-b", join=dial, meta_token=cluster.meta_hub.token):
                scope.cancel()
                await trio.sleep_forever()
        await trio.sleep(1.0)

    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "hub 'hub-b' was lost: its connection ended and it did not come back"
    ]


async def test_a_second_hub_of_the_same_name_is_refused(autojump_clock):
    async with open_test_cluster(("hub-a",)) as cluster:

        async def dial():
            return await cluster.dial("imposter")

        with pytest.raises(NameTaken, match="'hub-a' is taken"):
            async with open_hub("hub-a", join=dial, meta_token=cluster.meta_hub.token):
                raise AssertionError("it joined")
        async with cluster["hub-a"].open_client() as client:
            assert await statuses(client) == {"hub-a": "Connected"}


@pytest.mark.limit(200.0)
async def test_a_meta_hub_that_accepts_and_hangs_up_is_soon_redialled_more_slowly_and_still_each_second(
    autojump_clock,
):
    dials: list[float] = []

    async def dial():
        dials.append(trio.current_time())
        ours, theirs = record_pair()
        if len(dials) == 1:
            meta_hub.attach(theirs)
            first.append(ours)
        else:
            await theirs.aclose()
        return ours

    first: list = []
    async with open_meta_hub(None, token=TOKEN) as meta_hub:
        async with open_hub("hub-a", join=dial, meta_token=TOKEN):
            await trio.aclose_forcefully(first[0])
            await trio.sleep(100.0)

    pauses = [later - earlier for earlier, later in pairwise(dials)]
    assert pauses[0] <= 0.1
    assert 0.25 <= min(pauses[-100:]) <= max(pauses[-100:]) <= 0.5


async def test_a_program_does_not_wait_for_ever_for_a_meta_hub_that_is_not_there():
    with pytest.raises(ConnectionLost, match="cannot reach"):
        async with open_hub("hub-a", join="127.0.0.1:1", join_timeout=0.1):
            raise AssertionError("it joined")


@pytest.mark.limit(500.0)
async def test_a_meta_hub_and_a_hub_that_both_go_leave_no_shadow_behind(bench, autojump_clock):
    """The restarted MetaHub has never heard of the hub that is gone, so nobody will report its loss."""
    async with open_meta_hub(None, token=TOKEN) as old, open_meta_hub(None, token=TOKEN) as new:
        target, links = old, []

        async def dial():
            ours, theirs = record_pair()
            target.attach(theirs)
            links.append(ours)
            return ours

        common = {"agents": bench.agents, "join": dial, "meta_token": TOKEN}
        async with open_hub("hub-a", **common) as hub, hub.open_client() as client:
            async with open_hub("hub-b", **common):
                chief = await client.spawn("lead", "hub-b", name="chief")
                await settled()
                target = new
                await trio.aclose_forcefully(links[0])
                await trio.sleep(1.0)
                assert [h.name for h in await client.list_hubs()] == ["hub-a"]

            with trio.fail_after(200.0):
                assert await chief.result() == "lost"


async def test_a_hub_that_was_lost_and_comes_back_ends_what_nobody_waits_for_any_more(bench, autojump_clock):
    async with open_test_cluster(2, agents=bench.agents, timeouts=Timeouts(stop_grace=0.1)) as cluster:
        async with cluster["hub-a"].open_client() as client:
            chief = await client.spawn("lead", "hub-b", name="chief")
            await settled()
            cluster.isolate()
            await cluster.cut("hub-b")
            assert await chief.result() == "lost"
            cluster.isolate(reachable=True)
            await trio.sleep(5.0)

            assert bench.cancelled == ["hub-b/child"]


async def test_a_spawn_in_flight_when_the_link_breaks_is_repeated_and_done_once(bench, autojump_clock):
    async with open_test_cluster(2, agents=bench.agents) as cluster:
        far = cluster["hub-b"]
        await trio.sleep(0.01)  # a hub that comes in the millisecond of a request may have come after it
        async with cluster["hub-a"].open_client() as client, trio.open_nursery() as nursery:
            results: list[str] = []

            @nursery.start_soon
            async def spawn() -> None:
                child = await client.spawn("work", "it", hub="hub-b", name="child")
                results.append(await child.result())

            await far._runtime.until(lambda: len(far.core.agents) > 0)
            await cluster.cut("hub-a")
            await trio.sleep(1.0)
            assert len(far.core.agents) == len(cluster["hub-a"].core.agents) == 1
            bench.may_end.set()

        assert results == ["it on hub-b"]


async def test_a_spawn_whose_hub_stays_away_past_the_deadline_is_refused_and_nothing_runs_on(
    bench, autojump_clock
):
    timeouts = Timeouts(stop_grace=0.1, spawn_timeout=5.0)
    async with open_test_cluster(2, agents=bench.agents, timeouts=timeouts) as cluster:
        far, refused = cluster["hub-b"], []
        async with cluster["hub-a"].open_client() as client, trio.open_nursery() as nursery:

            @nursery.start_soon
            async def spawn() -> None:
                with pytest.raises(DeadlineExceeded):
                    await client.spawn("work", hub="hub-b", name="child")
                refused.append(trio.current_time())

            began = trio.current_time()
            await far._runtime.until(lambda: len(far.core.agents) > 0)
            cluster.isolate()
            await cluster.cut("hub-a")
            await trio.sleep(10.0)
            assert [at - began for at in refused] == [pytest.approx(5.0)]
            cluster.isolate(reachable=True)
            await trio.sleep(5.0)

            assert bench.cancelled == ["hub-b/child"]
            assert len(far.core.agents) == len(cluster["hub-a"].core.agents) == 0


@pytest.mark.limit(500.0)
async def test_a_hub_dials_again_when_its_meta_hub_has_fallen_silent(autojump_clock):
    """As behind a router that has forgotten the connection: nothing is refused, nothing arrives."""
    links, times = [], []

    async def dial():
        ours, theirs = record_pair()
        links.append(theirs)
        times.append(trio.current_time())
        theirs.send_nowait([Response(1, Welcome(name="hub-a", kind="meta_hub", protocol=PROTOCOL))])
        return ours

    async with open_hub("hub-a", join=dial):
        await trio.sleep(200.0)
        for link in links:
            await link.aclose()

    assert len(links) >= 2
    assert max(later - earlier for earlier, later in pairwise(times)) <= 46.0  # heartbeat + call


class SleepyChannel(FrameChannel):
    """An end of a connection of a hub that can be put to sleep: nothing comes or goes, and nothing ends."""

    def __init__(self, inner: FrameChannel) -> None:
        self.inner = inner
        self.asleep = False

    async def receive(self):
        frames = await self.inner.receive()
        if self.asleep:
            await trio.sleep_forever()
        return frames

    def send_nowait(self, frames) -> bool:
        return True if self.asleep else self.inner.send_nowait(frames)

    async def drained(self) -> None:
        await self.inner.drained()

    async def aclose(self) -> None:
        if self.asleep:
            await trio.lowlevel.checkpoint()
        else:
            await self.inner.aclose()


@pytest.mark.limit(500.0)
@pytest.mark.parametrize("rejoining", ["hub-a", "hub-c"])
async def test_however_hubs_join_meanwhile_a_silent_hub_has_all_its_time(rejoining, bench, autojump_clock):
    ends: list[SleepyChannel] = []
    async with open_test_cluster(("hub-a", "hub-c"), agents=bench.agents) as cluster:

        async def dial():
            if ends:
                raise ConnectionLost("it sleeps")
            ends.append(SleepyChannel(await cluster.dial("hub-b")))
            return ends[0]

        async with (
            open_hub("hub-b", join=dial, meta_token=cluster.meta_hub.token, agents=bench.agents),
            cluster["hub-a"].open_client() as client,
        ):
            chief = await client.spawn("lead", "hub-b", name="chief")
            await settled()
            ends[0].asleep = True
            began = trio.current_time()
            for _ in range(3):
                await trio.sleep(14.0)
                await cluster.cut(rejoining)

            assert await chief.result() == "lost"
            assert 75.0 <= trio.current_time() - began <= 91.0


@pytest.mark.parametrize("owner", ["elsewhere", "here"])
@pytest.mark.parametrize("trouble", ["away", "asleep"])
async def test_a_hub_closes_within_8_seconds_though_its_meta_hub_or_an_owner_hears_nothing(
    owner, trouble, bench, autojump_clock
):
    ends: list[SleepyChannel] = []

    def pair():
        ours, theirs = record_pair()
        ends.append(SleepyChannel(ours))
        return ends[-1], theirs

    async with open_test_cluster(("hub-a",), agents=bench.agents, pair=pair) as cluster:

        async def dial():
            return await cluster.dial("hub-b")

        common = {"join": dial, "meta_token": cluster.meta_hub.token, "agents": bench.agents}
        async with open_hub("hub-b", **common) as hub:
            async with cluster["hub-a"].open_client() as client, hub.open_client() as other:
                if owner == "elsewhere":
                    await client.spawn("lead", "hub-b", name="chief")
                else:
                    await other.spawn("lead", "hub-a", name="chief")
                await settled()
                if trouble == "away":
                    cluster.isolate()
                    await cluster.cut("hub-b")
                else:
                    ends[0].asleep = True
                await settled()
                began = trio.current_time()
        assert trio.current_time() - began <= 8.0
