"""A pipe is read to its end, or to that of whoever wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from loopal_cluster.links.pipes import ReadPipe


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    """A reading end for a ``ReadPipe`` to take over, and a writing end."""
    reading, writing = os.pipe()
    yield reading, writing
    os.close(writing)


async def test_what_is_written_is_read_and_then_the_end():
    reading, writing = os.pipe()
    async with ReadPipe(trio.lowlevel.FdStream(reading)) as pipe:
        os.write(writing, b"one two")

        assert [await pipe.receive_some(4), await pipe.receive_some()] == [b"one ", b"two"]

        os.close(writing)
        assert await pipe.receive_some() == b""


async def test_after_the_writers_end_comes_what_it_has_written_and_no_more(ends):
    reading, writing = ends
    async with ReadPipe(trio.lowlevel.FdStream(reading)) as pipe:
        os.write(writing, b"its own")
        pipe.end()
        os.write(writing, b"of another who holds the pipe open")

        assert [await pipe.receive_some(), await pipe.receive_some()] == [b"its own", b""]


async def test_the_writers_end_wakes_who_waits(ends, autojump_clock):
    async with ReadPipe(trio.lowlevel.FdStream(ends[0])) as pipe, trio.open_nursery() as nursery:

        async def read() -> None:
            assert await pipe.receive_some() == b""

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        pipe.end()


async def test_whoever_waits_is_told_that_it_is_closed(ends, autojump_clock):
    async with ReadPipe(trio.lowlevel.FdStream(ends[0])) as pipe, trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await pipe.receive_some()

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        pipe.close()
