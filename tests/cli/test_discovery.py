"""How the hubs of a machine are found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager

import pytest

from loopal_cluster import ConfigError, ConnectionLost, NameTaken
from loopal_cluster.cli.discovery import (
    LocalHub,
    claim_name,
    find_hub,
    known_token,
    local_hubs,
    runtime_directory,
)


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    """The runtime directory of this test."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "loopal-cluster"


CLAIM = """
import time
from loopal_cluster.cli.discovery import claim_name
with claim_name("box") as claim:
    claim.publish([claim.socket], "t")
    print(flush=True)
    time.sleep(60)
"""


@contextmanager
def claimed_elsewhere():
    """Another process, with a hub named ``box``."""
    with subprocess.Popen([sys.executable, "-c", CLAIM], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def test_a_hub_that_is_up_is_found_with_all_that_one_needs_to_connect(directory):
    with claim_name("box") as claim:
        claim.publish([claim.socket, "127.0.0.1:7"], "secret")

        found = find_hub()

    assert found == LocalHub("box", os.getpid(), str(directory / "box.sock"), "127.0.0.1:7", "secret")
    assert found.address == claim.socket
    assert "secret" not in repr(found)


def test_its_file_is_for_its_user_only(directory):
    with claim_name("box") as claim:
        claim.publish([claim.socket], "secret")

        assert (directory / "box.json").stat().st_mode & 0o777 == 0o600
        assert directory.stat().st_mode & 0o777 == 0o700
        assert set(json.loads((directory / "box.json").read_text())) == {"pid", "hub", "unix", "tcp", "token"}


def test_a_hub_that_has_ended_is_not_found_and_leaves_nothing(directory):
    with claim_name("box") as claim:
        claim.publish([claim.socket], "secret")

    assert [path.name for path in directory.iterdir()] == [".lock"]
    with pytest.raises(ConnectionLost, match="no hub runs here"):
        find_hub()


def test_a_hub_that_starts_has_its_name_and_is_not_found_yet():
    with claim_name("box"):
        assert local_hubs() == []
        with pytest.raises(NameTaken, match=f"a hub named 'box' runs here already .process {os.getpid()}"):
            with claim_name("box"):
                pass


def test_of_several_hubs_one_must_be_named():
    with claim_name("a") as a, claim_name("b") as b:
        a.publish([a.socket], "x")
        b.publish([b.socket], "y")

        with pytest.raises(ConfigError) as caught:
            find_hub()

    assert str(caught.value) == (f"several hubs run here: a (--connect {a.socket}), b (--connect {b.socket})")


def test_a_name_that_another_process_has_is_taken_and_its_hub_is_found():
    with claimed_elsewhere() as process:
        assert find_hub().pid == process.pid
        with pytest.raises(NameTaken, match=f"process {process.pid}"):
            with claim_name("box"):
                pass


def test_a_hub_that_was_killed_is_gone_even_while_it_is_a_zombie():
    with claimed_elsewhere() as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        os.kill(process.pid, 0)  # it is still there, for whoever asks by its id

        assert local_hubs() == []
        with claim_name("box") as claim:
            claim.publish([claim.socket], "t")
            assert find_hub().pid == os.getpid()


@pytest.mark.parametrize("pid", [1, os.getpid(), os.getppid()], ids=["init", "ours", "parent"])
def test_what_a_crashed_hub_left_is_removed_whoever_has_its_process_id_now(pid, directory):
    runtime_directory()
    record = {"pid": pid, "hub": "box", "unix": "x", "tcp": None, "token": "t"}
    (directory / "box.json").write_text(json.dumps(record))
    (directory / "box.sock").touch()

    assert local_hubs() == []
    assert [path.name for path in directory.iterdir()] == [".lock"]


def test_the_processes_that_a_hub_starts_do_not_keep_its_name():
    with claim_name("box") as claim:
        claim.publish([claim.socket], "t")
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)

    with child:
        with claim_name("box"):
            assert local_hubs() == []
        child.communicate(b"\n")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pid": "x"}', "\x00", '{"pid": null, "hub": 1}'])
def test_a_file_that_is_none_of_ours_is_removed(directory, text):
    runtime_directory()
    (directory / "box.json").write_text(text)

    assert local_hubs() == []
    with claim_name("box"):
        pass


def test_the_token_of_a_local_hub_is_known_by_any_of_its_addresses():
    with claim_name("box") as claim:
        claim.publish([claim.socket, "127.0.0.1:7"], "secret")

        assert known_token(claim.socket) == known_token("127.0.0.1:7") == "secret"
        assert known_token("127.0.0.1:8") is None


@pytest.mark.parametrize("kind", ["open", "link", "file"])
def test_a_directory_that_others_can_read_is_refused(directory, tmp_path, kind):
    if kind == "open":
        directory.mkdir()
        directory.chmod(0o755)
    elif kind == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        directory.symlink_to(tmp_path / "elsewhere")
    else:
        directory.touch()

    with pytest.raises(ConfigError, match="not a directory of ours with mode 0700"):
        find_hub()


def test_without_a_runtime_directory_the_temporary_one_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    assert runtime_directory() == tmp_path / f"loopal-cluster-{os.getuid()}"
