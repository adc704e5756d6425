"""Where a message goes, and the text that says so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopal_cluster.address import Address, check_name, sanitize_name
from loopal_cluster.errors import InvalidAddress

NAMES = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)


def test_a_name_without_a_slash_is_a_bare_address():
    assert Address.parse("worker") == Address("worker", None)


def test_a_name_before_the_slash_is_the_hub():
    assert Address.parse("hub-a/worker") == Address("worker", "hub-a")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "a/",
        "/a",
        "a/b/c",
        "a//b",
        "a b",
        "a\n",
        "\na",
        'a"b',
        "é",
        "a\x00",
        "x" * 65,
        "h/" + "x" * 65,
    ],
)
def test_a_text_that_is_no_address_is_refused(text):
    with pytest.raises(InvalidAddress, match="is not 1 to 64 of"):
        Address.parse(text)


def test_a_refusal_says_which_side_is_wrong_and_quotes_it():
    with pytest.raises(InvalidAddress, match=r"hub name 'my hub' is not"):
        Address.parse("my hub/a")
    with pytest.raises(InvalidAddress, match=r"agent name '' is not"):
        Address.parse("hub/")


def test_a_refusal_does_not_repeat_a_long_text():
    with pytest.raises(InvalidAddress) as caught:
        Address.parse("x" * 100_000)

    assert len(str(caught.value)) < 200


def test_64_characters_are_a_name_and_65_are_not():
    assert check_name("x" * 64) == "x" * 64
    with pytest.raises(InvalidAddress):
        check_name("x" * 65)


def test_an_address_can_be_moved_to_another_hub_and_made_bare():
    assert Address("a", "h").on("other") == Address("a", "other")
    assert Address("a", "h").on(None) == Address("a")


@given(NAMES, st.none() | NAMES)
def test_an_address_is_read_back_from_its_text(agent, hub):
    assert Address.parse(str(Address(agent, hub))) == Address(agent, hub)


@given(st.text())
def test_a_text_is_refused_or_read_back_as_it_was(text):
    try:
        address = Address.parse(text)
    except InvalidAddress:
        return

    assert str(address) == text


@given(st.text())
def test_any_text_can_be_made_a_name(text):
    assert check_name(sanitize_name(text))


def test_a_host_name_stays_what_it_is_where_it_can():
    assert sanitize_name("gpu-box.local") == "gpu-box.local"
    assert sanitize_name("Ann's MacBook") == "Ann-s-MacBook"
    assert sanitize_name("é") == "hub"
