"""A text is as large as its JSON, and one that is too large is refused, or kept in a file and told so."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopal_cluster.config import Limits
from loopal_cluster.core.kept import content_bytes, outcome_bytes, reply_bytes
from loopal_cluster.messages import Image, Opaque, Reply, UserContent
from loopal_cluster.outcomes import Cancelled, Done, Failed
from loopal_cluster.texts import excess, json_bytes
from loopal_cluster.wire.contents import dumps

TEXTS = st.text(alphabet=st.characters(), max_size=50) | st.text(alphabet='"\\\b\f\n\r\t\x00\x1f\x7fé€😀a')


@given(TEXTS)
def test_the_size_of_a_text_is_that_of_its_json(text):
    assert json_bytes(text) == len(dumps(text).json)


@given(TEXTS)
def test_a_text_is_too_large_from_the_first_byte_too_many(text):
    size = len(dumps(text).json)

    assert excess(text, size) == 0
    assert excess(text, size - 1) == size


@given(TEXTS)
def test_a_message_and_a_reply_have_the_size_of_their_text_read_or_not(text):
    size = json_bytes(text)
    content, reply = UserContent(text), Reply(Done(text))

    for limit in (size - 1, size):
        expected = size if limit < size else 0
        assert content_bytes(content, limit) == content_bytes(dumps(content), limit) == expected
        assert reply_bytes(reply.outcome, limit) == reply_bytes(dumps(reply), limit) == expected


def test_pictures_count():
    content = UserContent("see", (Image("image/png", "A" * 1000),))

    assert content_bytes(content, 1000) > 1000
    assert content_bytes(content, 2000) == 0


def test_a_traceback_counts():
    assert outcome_bytes(Failed("x", "y" * 100), 90) == 105
    assert outcome_bytes(Failed("x", "y" * 100), 105) == 0
    assert outcome_bytes(Cancelled("z" * 100), 90) == 102


def test_half_a_surrogate_pair_has_a_size():
    assert json_bytes("a\ud800b") == len(dumps("a\ud800b").json) == 5


def test_a_text_fits_its_line_with_all_that_is_around_it():
    limits = Limits()

    assert 2 * limits.text_bytes <= limits.line_bytes
    assert Limits(line_bytes=1000).text_bytes == 500
    with pytest.raises(ValueError, match="text_bytes"):
        Limits(text_bytes=9 * 2**20)


def test_what_loopal_writes_is_no_longer_than_we_think():
    """Its encoder, serde_json, escapes what ours does."""
    text = "".join(map(chr, range(0x80)))

    assert msgspec.json.encode(text) == json.dumps(text, ensure_ascii=False).encode()
    assert dumps(text) == Opaque(json.dumps(text, ensure_ascii=False).encode())
