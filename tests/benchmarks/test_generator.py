"""The load generator against the real MetaHub: what it checks, and that it would notice."""

from __future__ import annotations

import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest
from attrs import evolve

from benchmarks.errors import BenchmarkError
from benchmarks.load import Load, Sample, compiled, measure
from benchmarks.servers import open_server

REQUESTS = 300


@pytest.fixture(scope="module")
def programs() -> Iterator[Path]:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    with compiled() as directory:
        yield directory


def run(programs: Path, load: Load, server: str = "metahub") -> Sample:
    with open_server(server, programs) as running:
        return measure(programs, running, {"requests": REQUESTS, "warm_up": 0, **load})


def test_every_route_through_the_meta_hub_arrives_once_and_is_answered(programs: Path) -> None:
    sample = run(programs, {"window": 16})

    assert sample.load.routes >= REQUESTS
    assert not sample.faults
    assert 0 < sample.load.p50_us <= sample.load.p99_us <= sample.load.max_us
    assert sample.server_cpu_us > 0
    assert sample.idle_mb > 0


@pytest.mark.parametrize("server", ["metahub-unix", "echo", "relay", "relay-unix", "trio-relay"])
def test_the_same_load_can_be_put_on_what_the_meta_hub_is_compared_with(programs: Path, server: str) -> None:
    assert run(programs, {"window": 16}, server).load.routes >= REQUESTS


@pytest.mark.parametrize(
    "load",
    [
        {"ask": 1, "bytes": 5000},
        {"bare": 1, "agents": 20},
        {"hubs": 2, "senders": 2, "mutual": 1, "window": 200},
        {"delay_ms": 1},
        {"hubs": 200, "agents": 3},
    ],
    ids=["asks", "bare names", "two hubs to each other", "agents that take time", "idle hubs"],
)
def test_there_are_other_loads(programs: Path, load: Load) -> None:
    assert run(programs, load).load.routes >= REQUESTS


def test_a_slow_hub_is_measured_apart_from_the_others(programs: Path) -> None:
    sample = run(programs, {"hubs": 17, "slow_window": 4, "slow_ms": 50, "requests": 0, "seconds": 0.3})

    assert sample.slow is not None
    assert sample.slow.p50_us >= 50_000 > sample.load.p50_us


def test_an_observer_that_reads_sees_every_event(programs: Path) -> None:
    events = run(
        programs, {"hubs": 17, "events": 500, "observer": "reads", "requests": 0, "seconds": 0.3}
    ).events

    assert events.sent > 100
    assert (events.seen, events.gaps) == (events.sent, 0)


def test_a_deaf_observer_does_not_keep_the_load_from_being_carried_out(programs: Path) -> None:
    sample = run(programs, {"hubs": 17, "events": 500, "observer": "deaf"})

    assert sample.load.routes >= REQUESTS
    assert sample.events.seen == 0


# It would notice: between the hubs and the MetaHub there is now somebody who changes what is delivered.

Deliver = Callable[[bytes], list[bytes]]


def test_a_wrong_token_is_one_line(programs: Path) -> None:
    with open_server("metahub", programs) as server:
        with pytest.raises(BenchmarkError, match=r"^refused: .*invalid token[^\n]*$"):
            measure(programs, evolve(server, token="wrong"), {})


@pytest.mark.parametrize(
    ("deliver", "noticed"),
    [
        (lambda line: [line.replace(b"quick", b"quack")], "misplaced=[1-9].*changed"),
        (lambda line: [re.sub(rb'.","origin', rb'x","origin', line)], "misplaced=[1-9].*wrong hub"),
        (lambda line: [line.replace(b'"hub-0/', b'"hub-7/')], "misplaced=[1-9].*without its sender"),
        (lambda line: [line, line] if b"agent/message" in line else [line], "doubled=[1-9].*arrived twice"),
        (lambda line: [line, line] if b'"id":1099' in line else [line], "doubled=[1-9].*answered already"),
        (lambda line: [] if b'"id":1099' in line else [line], "lost=1"),
        (lambda line: [re.sub(rb'("id":1099.*)true', rb"\1false", line)], "refused=[1-9].*refused"),
    ],
    ids=["content", "id", "sender", "delivered twice", "answered twice", "not answered", "refused"],
)
def test_a_delivery_that_is_not_as_it_should_be_is_noticed(
    programs: Path, deliver: Deliver, noticed: str
) -> None:
    load = {"hubs": 2, "senders": 1, "receivers": 1, "window": 1, "seconds": 0.1, "patience": 0.5}
    with open_server("metahub", programs) as server, meddler(server.address, deliver) as address:
        with pytest.raises(BenchmarkError, match=noticed):
            measure(programs, evolve(server, address=address), load)


@contextmanager
def meddler(address: str, deliver: Deliver) -> Iterator[str]:
    """A proxy for two hubs that does to each line for them what it is told."""
    host, _, port = address.rpartition(":")
    with closing(socket.create_server(("127.0.0.1", 0))) as listener, ExitStack() as stack:

        def accept_two() -> None:
            for _ in range(2):
                hub = stack.enter_context(listener.accept()[0])
                server = stack.enter_context(socket.create_connection((host, int(port))))
                pumps.append(pump(hub, server, lambda line: [line]))
                pumps.append(pump(server, hub, deliver))

        pumps: list[threading.Thread] = []
        accepting = threading.Thread(target=accept_two)
        accepting.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        accepting.join()
        for thread in pumps:
            thread.join()


def pump(source: socket.socket, target: socket.socket, deliver: Deliver) -> threading.Thread:
    """Pass lines on, in a thread that ends with the connection."""

    def run() -> None:
        with suppress(OSError), source.makefile("rb") as lines:
            for line in lines:
                target.sendall(b"".join(deliver(line)))
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=run)
    thread.start()
    return thread
