"""The same clusters with the real runtime in them: trio's tasks, the codec, streams of bytes."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from typing import Any

import pytest
import trio
from attrs import evolve

from loopal_cluster.core.events import AgentEnded, PeerLost
from loopal_cluster.links.channels import StreamChannel
from loopal_cluster.runtime import hub
from loopal_cluster.runtime.outbox import Outboxes
from loopal_cluster.runtime.runtime import Runtime
from loopal_cluster.testing.halting import Halter, Switch
from tests.simulation import Level, Peers, Simulation, Weather
from tests.simulation.__main__ import main
from tests.simulation.live import streams
from tests.simulation.live.scheduler import SimClock, seeded_scheduler
from tests.simulation.live.streams import Reader, SimStream
from tests.simulation.network import RESET, Connection, Line, Pipe, connect
from tests.simulation.schedule import Schedule
from tests.simulation.script import generate

from .seeds import seed_that_catches

SEEDS = range(4)


def findings(weather: Weather, seeds: range) -> list[str]:
    return [
        f"seed {seed}: {deviation}"
        for seed in seeds
        for deviation in Simulation(seed, weather, level=Level.RUNTIME).run().deviations
    ]


@pytest.mark.parametrize("weather", Weather)
def test_the_runtime_keeps_every_promise(weather):
    assert findings(weather, SEEDS) == []


@pytest.mark.slow
@pytest.mark.parametrize("weather", Weather)
def test_the_runtime_keeps_every_promise_for_thousands_of_seeds(weather):
    assert findings(weather, range(1000, 3000)) == []


# The same seed, the same run.

DIGEST = """
import gc, random
chance = random.SystemRandom()
heap = [bytearray(chance.randrange(5000)) for _ in range(chance.randrange(3000))]
del heap[::2]
gc.set_threshold(chance.randrange(50, 5000))
from tests.simulation import Level, Simulation, Weather
for seed in range(30, 32):
    print(Simulation(seed, Weather.ROUGH, level=Level.RUNTIME).run(tracing=True).digest)
"""


def digests(hash_seed: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", DIGEST],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.split()


def test_a_seed_gives_the_same_transcript_in_every_process_whatever_its_hashes_and_its_heap():
    here = [
        Simulation(seed, Weather.ROUGH, level=Level.RUNTIME).run(tracing=True).digest
        for seed in range(30, 32)
    ]

    assert len(set(here)) == 2
    assert digests("1") == here
    assert digests("12345") == here


def test_tracing_changes_nothing_but_the_transcript():
    for seed in range(2):
        simulation = Simulation(seed, Weather.ROUGH, level=Level.RUNTIME)
        seen, unseen = simulation.run(tracing=True), simulation.run()

        assert seen.transcript
        assert evolve(seen, transcript=()).digest == unseen.digest


def raise_it(error: Exception) -> None:
    raise error


async def finishing_order() -> list[int]:
    order: list[int] = []

    async def take_turns(number: int) -> None:
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(take_turns, number)
    return order


def test_only_the_seed_decides_the_order_in_which_trio_runs_tasks():
    """Holds that the two private names of trio on which this stands still do what they did."""
    orders = []
    for seed in (1, 1, 2):
        with seeded_scheduler(seed):
            orders.append(trio.run(finishing_order))

    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


def test_the_scheduler_is_given_back_as_it_was():
    flag = trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING
    state = trio._core._run._r.getstate()

    with seeded_scheduler(1):
        trio.run(finishing_order)

    assert flag == trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING
    assert state == trio._core._run._r.getstate()


def test_what_is_scheduled_happens_between_the_deadlines_of_tasks():
    schedule, seen = Schedule(), []
    schedule.at(1.0, lambda: seen.append((schedule.now, "event")))

    async def sleeper() -> None:
        for _ in range(2):
            await trio.sleep(0.75)
            seen.append((trio.current_time(), "task"))

    trio.run(sleeper, clock=SimClock(schedule, raise_it))

    assert seen == [(0.75, "task"), (1.0, "event"), (1.5, "task")]


# Processes that are killed and stopped.


def run_ticker(act: Any) -> list[str]:
    """A process that ticks each second and says when it ends; ``act`` is called with its switch after 2.5 s."""
    schedule, said = Schedule(), []
    switch = Switch("ticker")
    schedule.at(2.5, act, switch, schedule)

    async def tick() -> None:
        try:
            while True:
                await trio.sleep(1)
                said.append(f"tick {trio.current_time():g}")
        finally:
            said.append(f"cleanup {trio.current_time():g}")

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            Halter.enter(switch)
            nursery.start_soon(tick)
            Halter.enter(Switch("main"))
            await trio.sleep(6)
            nursery.cancel_scope.cancel()
            switch.resume()

    trio.run(main, clock=SimClock(schedule, raise_it), instruments=[Halter()])
    return said


def test_a_killed_process_does_nothing_until_the_run_is_over():
    said = run_ticker(lambda switch, _: switch.halt())

    assert said == ["tick 1", "tick 2", "cleanup 6"]


def test_a_stopped_process_goes_on_where_it_was():
    def stop(switch: Switch, schedule: Schedule) -> None:
        switch.halt()
        schedule.after(1.7, switch.resume)

    assert run_ticker(stop) == ["tick 1", "tick 2", "tick 4.2", "tick 5.2", "cleanup 6"]


# Streams.


def pair(schedule: Schedule, line: Line | None = None) -> tuple[SimStream, SimStream, Connection]:
    connection = connect(
        schedule, Reader(), Reader(), names=("a", "b"), seed="1", line=line, ends=(SimStream, SimStream)
    )
    here, there = connection.dialler, connection.listener
    assert isinstance(here, SimStream)
    assert isinstance(there, SimStream)
    return here, there, connection


async def read_all(stream: SimStream) -> bytes:
    return b"".join([chunk async for chunk in stream])


def simulate(test: Any, line: Line | None = None) -> None:
    schedule = Schedule()
    trio.run(test, *pair(schedule, line), clock=SimClock(schedule, raise_it))


def test_bytes_arrive_in_order_however_they_are_cut():
    async def test(here: SimStream, there: SimStream, _: Connection) -> None:
        data = random.Random(1).randbytes(300_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.send_all, data)
            received = bytearray()
            while len(received) < len(data):
                received += await there.receive_some(1000)

        assert received == data

    simulate(test)


def test_who_sends_more_than_the_window_waits_for_the_reader():
    async def test(here: SimStream, there: SimStream, _: Connection) -> None:
        with trio.move_on_after(100) as patience:
            await here.send_all(bytes(100_000))
        assert patience.cancelled_caught

        await there.receive_some(1000)
        with trio.fail_after(1):
            await here.wait_send_all_might_not_block()

    simulate(test)


def test_a_half_closed_stream_still_receives():
    async def test(here: SimStream, there: SimStream, _: Connection) -> None:
        await here.send_all(b"question")
        await here.send_eof()

        assert await read_all(there) == b"question"
        await there.send_all(b"answer")
        await there.aclose()
        assert await read_all(here) == b"answer"

    simulate(test)


def test_both_sides_of_a_cut_connection_learn_of_it():
    async def test(here: SimStream, there: SimStream, connection: Connection) -> None:
        connection.cut()

        for stream in (here, there):
            with pytest.raises(trio.BrokenResourceError, match=RESET), trio.fail_after(1):
                await stream.receive_some()

    simulate(test)


def test_a_blocked_line_holds_what_is_sent_until_it_is_healed():
    line = Line(up_blocked=True)

    async def test(here: SimStream, there: SimStream, _: Connection) -> None:
        await here.send_all(b"late")
        with trio.move_on_after(10) as patience:
            await there.receive_some()
        assert patience.cancelled_caught

        line.heal()
        with trio.fail_after(1):
            assert await there.receive_some() == b"late"

    simulate(test, line)


def test_a_stream_that_we_have_closed_says_so():
    async def test(here: SimStream, _: SimStream, __: Connection) -> None:
        await here.aclose()

        with pytest.raises(trio.ClosedResourceError):
            await here.send_all(b"x")
        with pytest.raises(trio.ClosedResourceError):
            await here.receive_some()

    simulate(test)


# It finds what is broken in the runtime, where the cores are as they should be.


def frames_that_are_lost_when_the_transport_is_full(patch):
    intact = Outboxes.queue
    patch.setattr(
        Outboxes,
        "queue",
        lambda self, connection, *frame: None if connection.congested else intact(self, connection, *frame),
    )
    patch.setattr(streams, "WINDOWS", (64,))


def a_connection_whose_end_the_core_is_not_told(patch):
    intact = Runtime.dispatch
    patch.setattr(
        Runtime,
        "dispatch",
        lambda self, event: None if isinstance(event, PeerLost) else intact(self, event),
    )


def a_line_that_is_forgotten_when_it_comes_in_pieces(patch):
    intact = StreamChannel.receive

    async def receive(self):
        self._lines._buffer.close()
        return await intact(self)

    patch.setattr(StreamChannel, "receive", receive)
    patch.setattr(streams, "WINDOWS", (64,))


def a_hub_that_does_not_dial_again(patch):
    intact, tries = hub._serve_uplink, set()

    async def serve_once(ours, *args):
        if ours in tries:
            await trio.sleep_forever()
        joined = await intact(ours, *args)
        if joined:
            tries.add(ours)
        return joined

    patch.setattr(hub, "_serve_uplink", serve_once)


def an_agent_whose_end_nobody_tells_the_core(patch):
    intact = Runtime.dispatch
    patch.setattr(
        Runtime,
        "dispatch",
        lambda self, event: None if isinstance(event, AgentEnded) else intact(self, event),
    )


def a_deadline_that_does_not_ring(patch):
    async def never(_):
        await trio.sleep_forever()

    patch.setattr(Runtime, "_ring_forever", never)


def a_task_that_raises(patch):
    def surprised(*_):
        raise LookupError("surprise")

    patch.setattr(hub._Agents, "stop", surprised)


@pytest.mark.parametrize(
    ("defect", "checker"),
    [
        (frames_that_are_lost_when_the_transport_is_full, "one outcome"),
        (a_connection_whose_end_the_core_is_not_told, "tables empty when quiet"),
        (a_line_that_is_forgotten_when_it_comes_in_pieces, "one outcome"),
        (a_hub_that_does_not_dial_again, "hubs come back"),
        (an_agent_whose_end_nobody_tells_the_core, "one outcome"),
        (a_deadline_that_does_not_ring, "one outcome"),
        (a_task_that_raises, "no task raises"),
    ],
)
def test_a_defect_of_the_runtime_is_found(defect, checker, monkeypatch):
    defect(monkeypatch)

    def catches(seed: int) -> bool:
        report = Simulation(seed, Weather.ROUGH, level=Level.RUNTIME).run()
        return any(deviation.checker == checker for deviation in report.deviations)

    assert seed_that_catches(defect.__name__, range(60), catches) is not None


def test_an_error_of_the_simulation_itself_comes_out(monkeypatch):
    def surprised(*_):
        raise LookupError("surprise")

    monkeypatch.setattr(Pipe, "pump", surprised)

    with pytest.raises(LookupError, match="surprise"):
        Simulation(0, Weather.CALM, level=Level.RUNTIME).run()


def test_a_task_that_raises_is_shown_with_its_traceback(monkeypatch):
    a_task_that_raises(monkeypatch)

    reports = (Simulation(seed, Weather.CALM, level=Level.RUNTIME).run() for seed in range(60))
    found = next(report.deviations for report in reports if report.deviations)

    assert "raised LookupError: surprise" in str(found[0])
    assert "in surprised" in str(found[0])


# The command.


def test_the_command_runs_the_runtime(capsys):
    status = main(["--seeds", "2", "--seed", "0", "--level", "runtime", "--json"])

    said = json.loads(capsys.readouterr().out)
    assert status == 0
    assert (said["level"], said["runs"], said["findings"]) == ("runtime", 4, 0)


def test_the_command_says_how_to_see_a_finding_of_the_runtime_again(monkeypatch, capsys):
    a_task_that_raises(monkeypatch)

    status = main(["--seeds", "60", "--seed", "0", "--level", "runtime", "--weather", "calm"])

    out = capsys.readouterr().out
    assert status == 1
    assert "[no task raises]" in out
    assert "--weather calm --peers ours --level runtime" in out


def test_there_are_no_base_peers_at_this_level(capsys):
    mixed = next(seed for seed in range(60) if generate(seed, Weather.CALM, Peers.MIXED).base)

    with pytest.raises(SystemExit, match="2"):
        main(["--level", "runtime", "--peers", "mixed"])
    with pytest.raises(ValueError, match="base dialect"):
        Simulation(mixed, Weather.CALM, Peers.MIXED, Level.RUNTIME)

    assert "base dialect" in capsys.readouterr().err
