"""The command ``hub`` at a terminal: a pty, as a human has it."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import asynccontextmanager

import pytest
import trio

AGENTS = """
async def talk(ctx, prompt):
    return f"{prompt} indeed"

async def careful(ctx, prompt):
    decision = await ctx.ask_permission("Bash", {"command": prompt})
    return f"decided {decision.allow}"

async def wild(ctx, prompt):
    ctx.stream("\\x1b]0;owned\\x07")
    return "tame"
"""
NAMES = ("talk", "careful", "wild")
CONFIG = "".join(f'[agents.{name}]\nprotocol = "python"\ntarget = "pty_agents:{name}"\n' for name in NAMES)


class Terminal:
    """The human's side of a pty."""

    def __init__(self, process, descriptor):
        self.process = process
        self.screen = ""
        self._descriptor = descriptor

    async def shows(self, text, count=1):
        """Wait until the screen has this text, so many times."""
        while self.screen.count(text) < count:
            await trio.lowlevel.wait_readable(self._descriptor)
            self.screen += os.read(self._descriptor, 65536).decode()

    def types(self, text):
        os.write(self._descriptor, text.encode())

    async def ends(self):
        """Wait until the program has ended, and show what it last said."""
        status = await self.process.wait()
        try:
            while chunk := os.read(self._descriptor, 65536):
                self.screen += chunk.decode()
        except OSError:  # a pty says so that its other side is closed
            pass
        return status


@pytest.fixture
def terminal(program):
    """Run the command at a terminal of its own."""
    (program.directory / "pty_agents.py").write_text(AGENTS)
    config = program.directory / "hub.toml"
    config.write_text(CONFIG)

    @asynccontextmanager
    async def start(*options):
        ours, theirs = os.openpty()
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "loopal_cluster", "hub", "--config", str(config), *options],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env=program.environment,
        )
        os.close(theirs)
        try:
            yield Terminal(process, ours)
        finally:
            if process.poll() is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            os.close(ours)

    return start


async def test_a_human_talks_to_the_agent_until_ctrl_d(terminal):
    async with terminal("--agent", "talk") as human:
        await human.shows("The first line you type is the prompt")
        await human.shows("Ctrl-D ends.")
        human.types("hot\n")
        await human.shows("hot indeed")
        human.types("sunny\n")
        await human.shows("sunny indeed")
        human.types("\x04")

        assert await human.ends() == 0


async def test_a_human_is_asked_and_only_what_is_typed_then_is_an_answer(terminal):
    async with terminal("--ephemeral", "--agent", "careful", "rm x") as human:
        await human.shows("allow? [y/n]")
        human.types("maybe\n")
        await human.shows("allow? [y/n]", count=2)
        human.types("n\n")

        assert await human.ends() == 0
        assert "decided False" in human.screen


async def test_a_human_is_told_who_was_first(terminal, program):
    async with terminal("--ephemeral", "--agent", "careful", "rm x") as human:
        await human.shows("allow? [y/n]")
        async with program.start("attach", "--name", "bob") as bob:
            await bob.says("allow? y or n")
            await bob.types("y\n")
            await human.shows("(it was allowed by bob first)")

        assert await human.ends() == 0


async def test_who_has_nobody_to_talk_to_is_told_how_to(terminal):
    async with terminal() as human:
        await human.shows(
            "There is nobody to talk to: --agent names who it is (there are: talk, careful, wild)."
        )


async def test_a_result_that_was_streamed_is_not_shown_twice(terminal):
    async with terminal("--ephemeral", "--agent", "talk", "hot") as human:
        assert await human.ends() == 0
        assert human.screen.count("hot indeed") == 1


async def test_a_terminal_never_obeys_an_agent(terminal):
    async with terminal("--ephemeral", "--agent", "wild", "go") as human:
        assert await human.ends() == 0
        assert r"\x1b]0;owned\x07" in human.screen
        assert "\x1b" not in human.screen


async def test_ctrl_c_ends_it_quietly(terminal):
    async with terminal("--agent", "talk") as human:
        await human.shows("Ctrl-D ends.\r\n")
        before = human.screen
        human.process.send_signal(signal.SIGINT)

        assert await human.ends() == 130
        assert human.screen == before
