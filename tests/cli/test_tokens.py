"""The token of a cluster comes from a file, or from the environment."""

from __future__ import annotations

import pytest

from loopal_cluster.cli.tokens import TOKEN_VARIABLE, given_token, read_token
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


def test_a_file_that_is_named_comes_before_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "of the environment")
    (tmp_path / "token").write_text("of the file")

    assert given_token(tmp_path / "token") == "of the file"
    assert given_token(None) == "of the environment"
