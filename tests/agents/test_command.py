"""Any program as an agent, with real programs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from loopal_cluster import CommandAgent
from loopal_cluster.agents.children import ChildNotStarted
from loopal_cluster.agents.command import MAX_OUTPUT, CommandFailed, run_command

from ..processes import is_alive, python

pytestmark = pytest.mark.skipif(os.name != "posix", reason="process groups are POSIX")

BIG = "x" * 5_000_000


async def test_the_prompt_goes_in_and_the_result_comes_out() -> None:
    assert await run_command(["tr", "a-z", "A-Z"], "grüße\n") == "GRüßE"


async def test_the_prompt_takes_the_place_of_an_argument_and_then_the_input_is_empty() -> None:
    code = "import sys; print(sys.argv[1:], repr(sys.stdin.read()))"

    result = await run_command(python(code, "-p", "{prompt}", "x={prompt}"), "do it")

    assert result == "['-p', 'do it', 'x={prompt}'] ''"


async def test_the_environment_and_the_directory_are_passed_on(tmp_path: Path) -> None:
    env = {"PATH": os.defpath, "COLOUR": "blue"}
    cwd = str(await trio.Path(tmp_path).resolve())

    result = await run_command(["sh", "-c", "echo $COLOUR; pwd"], "", env=env, cwd=cwd)

    assert result.splitlines() == ["blue", cwd]


async def test_another_exit_status_is_a_failure_with_the_last_words() -> None:
    with pytest.raises(CommandFailed) as caught:
        await run_command(["sh", "-c", "echo half a result; echo no key >&2; exit 7"], "hi")

    assert str(caught.value) == "exited with status 7: no key"


async def test_a_signal_is_a_failure() -> None:
    with pytest.raises(CommandFailed, match=r"^killed by SIGKILL$"):
        await run_command(["sh", "-c", "kill -9 $$"], "hi")


async def test_a_missing_program_is_not_started() -> None:
    with pytest.raises(ChildNotStarted, match="'no-such-program' was not found"):
        await run_command(["no-such-program"], "hi")


async def test_a_prompt_too_long_for_an_argument_is_not_started() -> None:
    with pytest.raises(ChildNotStarted, match="Argument list too long"):
        await run_command(["echo", "{prompt}"], BIG)


async def test_a_big_prompt_is_written_while_the_output_is_read() -> None:
    assert await run_command(["cat"], BIG) == BIG


async def test_a_program_need_not_read_its_prompt() -> None:
    assert await run_command(["echo", "done"], BIG) == "done"
    with pytest.raises(CommandFailed, match=r"^exited with status 1$"):
        await run_command(["false"], BIG)
    assert await run_command(["sh", "-c", "exec <&-; echo done"], BIG) == "done"


async def test_a_process_that_escaped_keeps_nobody_waiting() -> None:
    code = (
        "import subprocess; p = subprocess.Popen(['sleep', '1000'], start_new_session=True); "
        "print(p.pid, flush=True); p.returncode = 0"
    )

    escaped = int(await run_command(python(code), BIG))

    os.kill(escaped, 9)


async def test_output_streams_in_chunks(tmp_path: Path) -> None:
    fifo = str(tmp_path / "go-on")
    os.mkfifo(fifo)
    pieces: list[str] = []

    def on_output(piece: str) -> None:
        pieces.append(piece)
        if piece == "one\n":  # The program waits for us to have seen it.
            os.close(os.open(fifo, os.O_WRONLY))

    result = await run_command(
        ["sh", "-c", 'echo one; read line <"$0"; echo two', fifo], "", on_output=on_output
    )

    assert result == "one\ntwo"
    assert pieces == ["one\n", "two\n"]


async def test_a_character_cut_in_two_is_one_character() -> None:
    pieces: list[str] = []
    code = (
        "import sys; [(sys.stdout.buffer.write(bytes([b])), sys.stdout.flush()) for b in '€€'.encode() * 100]"
    )

    assert await run_command(python(code), "", on_output=pieces.append) == "€€" * 100
    assert "".join(pieces) == "€€" * 100


async def test_invalid_utf8_is_replaced() -> None:
    assert await run_command(["printf", r"a\377b\342\202"], "") == "a�b�"


async def test_output_beyond_the_bound_is_cut_and_says_so() -> None:
    output = await run_command(["sh", "-c", f"head -c {MAX_OUTPUT + 100_000} /dev/zero; sleep 60"], "")

    assert output.endswith(f"\0\n[cut after {MAX_OUTPUT} bytes]")
    assert len(output) < MAX_OUTPUT + 70_000


async def test_an_exception_of_the_listener_comes_out_bare() -> None:
    def on_output(piece: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run_command(["yes"], "", grace=0.1, on_output=on_output)


async def test_cancelling_ends_the_program_and_its_group_at_once() -> None:
    pids: list[int] = []
    with trio.CancelScope() as scope:

        def on_output(piece: str) -> None:
            pids.extend(map(int, piece.split()))
            scope.cancel()

        await run_command(["sh", "-c", "sleep 1000 & echo $$ $!; wait"], "", grace=1000, on_output=on_output)

    assert scope.cancelled_caught
    assert len(pids) == 2
    assert not any(map(is_alive, pids))


@pytest.mark.parametrize(
    "argv", [["tool", "{prompt}"], ["tool", "-p", "{prompt}"], ["tool", "{prompt}", "--"]]
)
def test_a_command_that_could_take_a_prompt_for_an_option_is_refused(argv):
    with pytest.raises(ValueError, match=r'put "--" before \{prompt\}, or leave \{prompt\} out'):
        CommandAgent(argv)


def test_after_two_dashes_or_on_standard_input_a_prompt_is_none():
    CommandAgent(["tool", "-v", "--", "{prompt}"])
    CommandAgent(["tool", "-p"])
