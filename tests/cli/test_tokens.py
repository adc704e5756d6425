"""The token of a cluster comes from a file, or from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from loopal_cluster.cli.tokens import (
    TOKEN_VARIABLE,
    TokenFile,
    given_token,
    read_token,
    read_tokens,
    state_directory,
)
from loopal_cluster.errors import ConfigError


def test_a_token_is_read_without_the_white_space_around_it(tmp_path):
    (tmp_path / "token").write_text(" secret\n")
    (tmp_path / "empty").write_text(" \n")

    assert read_token(tmp_path / "token") == "secret"
    with pytest.raises(ConfigError, match="is empty"):
        read_token(tmp_path / "empty")


@pytest.mark.parametrize(("content", "fault"), [(None, "No such file"), (b"\xff", "codec can't decode")])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content, fault):
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigError, match=f"cannot read the token file {path}: .*{fault}"):
        read_token(path)


def test_a_token_file_has_one_token_a_line_and_the_first_is_sent(tmp_path):
    (tmp_path / "token").write_text("\n  first \n\nsecond\r\nwith space\n")

    assert read_tokens(tmp_path / "token") == ("first", "second", "with space")
    assert read_token(tmp_path / "token") == "first"


def test_what_is_too_long_is_no_token_file(tmp_path):
    (tmp_path / "token").write_text("x" * 65537)

    with pytest.raises(ConfigError, match="has more than 65536 bytes"):
        read_tokens(tmp_path / "token")


def test_a_token_file_is_read_again_when_it_has_changed_and_one_that_cannot_be_read_changes_nothing(
    tmp_path, caplog
):
    path = tmp_path / "token"
    path.write_text("one")
    tokens = TokenFile(path)

    seen = [tokens()]
    path.write_text("two\nthree")
    seen.append(tokens())
    path.unlink()
    seen += [tokens(), tokens()]
    path.write_text("")
    seen.append(tokens())
    path.write_text("four")
    seen.append(tokens())

    assert seen == [("one",), *[("two", "three")] * 4, ("four",)]
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        f"cannot read the token file {path}",
        f"the token file {path} is empty; what was in it before is used on",
    ]


@pytest.mark.parametrize(
    ("variable", "given", "where"),
    [
        ("/state", None, "/state/loopal-cluster"),
        ("", None, "/home/ann/.local/state/loopal-cluster"),
        ("relative", None, "/home/ann/.local/state/loopal-cluster"),
        ("/state", Path("/there"), "/there"),
    ],
)
def test_the_state_directory_is_where_the_xdg_specification_has_it(monkeypatch, variable, given, where):
    monkeypatch.setenv("XDG_STATE_HOME", variable)
    monkeypatch.setenv("HOME", "/home/ann")

    assert state_directory(given) == Path(where)


def test_a_file_that_is_named_comes_before_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "of the environment")
    (tmp_path / "token").write_text("of the file")

    token = given_token(tmp_path / "token")
    assert callable(token)
    assert token() == ("of the file",)
    assert given_token(None) == "of the environment"
