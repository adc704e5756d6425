from __future__ import annotations

import time
import tracemalloc
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from loopal_cluster.wire.framing import LineBuffer, Oversized

MIB = 2**20


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(at % (len(data) + 1) for at in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def read(data: bytes, cuts: list[int], max_bytes: int) -> list[bytes | str]:
    """All lines of ``data``, fed in pieces; where a long line is given up depends on the pieces."""
    buffer = LineBuffer(max_bytes)
    found = [line for piece in cut(data, cuts) for line in buffer.feed(piece)]
    last = buffer.close()
    found += [last] if last else []
    return ["oversized" if isinstance(line, Oversized) else line for line in found]


@given(st.text(alphabet="ab \r\n", max_size=60), st.lists(st.integers(0, 60)), st.integers(1, 20))
def test_lines_do_not_depend_on_how_the_bytes_arrive(text: str, cuts: list[int], max_bytes: int) -> None:
    data = text.encode()
    expected = [
        "oversized" if len(line) > max_bytes else line.strip()
        for line in data.split(b"\n")
        if line.strip() or len(line) > max_bytes
    ]

    assert read(data, cuts, max_bytes) == expected


LENGTHS = st.sampled_from([0, 1, 100, 511, 512, 513, 8190, 8191, 8192, 8193, 20_000])


@given(st.lists(LENGTHS, max_size=20), st.lists(st.integers(0, 200_000), max_size=3))
def test_lines_of_any_lengths_are_cut_where_they_end(lengths: list[int], cuts: list[int]) -> None:
    lines = [bytes([97 + number]) * length for number, length in enumerate(lengths)]

    assert read(b"\n".join(lines), cuts, MIB) == [line for line in lines if line]


def test_lines_are_stripped_and_blank_ones_skipped() -> None:
    assert LineBuffer(100).feed(b' {"a":1}\r\n\r\n \t\n{"b":2}\n') == [b'{"a":1}', b'{"b":2}']


def test_a_line_without_its_line_feed_is_given_at_the_end() -> None:
    buffer = LineBuffer(100)

    assert buffer.feed(b"one\ntw") == [b"one"]
    assert buffer.feed(b"o") == []
    assert buffer.close() == b"two"
    assert buffer.close() is None


def test_a_line_as_long_as_the_limit_is_a_line() -> None:
    assert LineBuffer(5).feed(b"12345\n123456\n12345\n") == [b"12345", Oversized(b"123456", 6), b"12345"]


def test_a_line_that_grows_too_long_is_reported_at_once_and_once() -> None:
    buffer = LineBuffer(5)

    assert buffer.feed(b"1234") == []
    assert buffer.feed(b"5678") == [Oversized(b"12345678", 8)]
    assert buffer.feed(b"90" * 100) == []
    assert buffer.feed(b"end\nnext\n") == [b"next"]


def test_a_skipped_line_is_not_given_at_the_end() -> None:
    buffer = LineBuffer(5)
    buffer.feed(b"123456")

    assert buffer.close() is None


def test_only_the_start_of_an_over_long_line_is_kept() -> None:
    [oversized] = LineBuffer(1000).feed(b"x" * 2000)

    assert oversized == Oversized(b"x" * 256, 2000)


def test_a_skipped_line_of_100_mb_takes_no_memory_and_little_time() -> None:
    buffer = LineBuffer(16 * MIB)
    piece = b"x" * (64 * 1024)
    tracemalloc.start()
    begun = time.process_time()

    found = [line for _ in range(1600) for line in buffer.feed(piece)]

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 1
    assert peak < 40 * MIB
    assert time.process_time() - begun < 2
    assert buffer.feed(b"\nnext\n") == [b"next"]


def test_a_long_line_in_small_pieces_takes_linear_time_and_memory() -> None:
    buffer = LineBuffer(16 * MIB)
    begun = time.process_time()

    for _ in range(MIB // 8):
        buffer.feed(b"eight by")

    assert time.process_time() - begun < 2
    assert buffer.feed(b"\n") == [b"eight by" * (MIB // 8)]
