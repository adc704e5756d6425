"""The ``command`` protocol: any program can be an agent.

The prompt goes in on standard input, or as an argument; the result comes out on standard output; exit
status 0 says that it is one. No messages, no tools: a program that wants those speaks the agent protocol
(``ProcessAgent`` in ``types.py``).
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping, Sequence

import trio

from loopal_cluster.agents.children import open_child
from loopal_cluster.agents.guard import Guard
from loopal_cluster.errors import ClusterError
from loopal_cluster.links.background import open_background
from loopal_cluster.texts import TEXT_BYTES

__all__ = ["MAX_OUTPUT", "PROMPT", "CommandFailed", "check_prompt_place", "run_command"]

PROMPT = "{prompt}"
"""The item of an argument list that stands for the prompt."""
MAX_OUTPUT = 2 * TEXT_BYTES
"""So many bytes of output are collected, which is more than a result may have; then the program is ended."""


def check_prompt_place(argv: Sequence[str]) -> None:
    """Refuse a command that could take a prompt for one of its options.

    Raises:
        ValueError: with what to do.
    """
    if PROMPT in argv and "--" not in argv[: argv.index(PROMPT)]:
        raise ValueError(
            f'a prompt that begins with "-" would be an option: put "--" before {PROMPT}, or leave {PROMPT} out, '
            "so that the prompt goes to standard input"
        )


class CommandFailed(ClusterError):
    """The program has no result; the message says how it ended and what it last said on stderr."""


async def run_command(
    argv: Sequence[str],
    prompt: str,
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    grace: float = 5.0,
    guard: Guard | None = None,
    on_output: Callable[[str], None] | None = None,
) -> str:
    """The output of a program for a prompt, as UTF-8, without trailing newlines.

    The prompt is written to standard input, unless an item of ``argv`` is ``{prompt}``: then it takes
    that item's place, and standard input is empty. Only whole items are replaced, never parts: a prompt
    inside of ``sh -c '...'`` would be run as code. ``on_output`` gets the output piece by piece, as it comes.
    Output beyond ``MAX_OUTPUT`` is cut, and the program ended: its result is too large in any case, and kept as far as
    it goes.
    If cancelled, the program and its group get SIGTERM and, after ``grace`` seconds, SIGKILL.

    Raises:
        ChildNotStarted: there is no such program or directory, or the prompt does not fit an argument.
        CommandFailed: the exit status was not 0.
    """
    stdin = b"" if PROMPT in argv else prompt.encode("utf-8", "replace")
    command = [prompt if item == PROMPT else item for item in argv]
    async with open_child(command, env=env, cwd=cwd, grace=grace, guard=guard) as child:
        try:
            # Beside, because a program may answer before it has read everything, or read nothing at all.
            async with open_background() as nursery:
                nursery.start_soon(_feed, child.stdin, stdin)
                output, is_whole = await _collect(child.stdout, on_output)
                status = await child.wait() if is_whole else 0
        finally:
            child.terminate()
    if status != 0:
        raise CommandFailed(child.ending)
    return output.rstrip("\n") if is_whole else f"{output}\n[cut after {MAX_OUTPUT} bytes]"


async def _feed(stdin: trio.abc.SendStream, data: bytes) -> None:
    try:
        await stdin.send_all(data)
        await stdin.aclose()
    except trio.BrokenResourceError:
        pass  # It did not want to know. Its exit status says whether it has a result all the same.


async def _collect(
    stdout: trio.abc.ReceiveStream, on_output: Callable[[str], None] | None
) -> tuple[str, bool]:
    """The output, and whether that is all of it."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces: list[str] = []
    size = 0

    def take(piece: str) -> None:
        pieces.append(piece)
        if piece and on_output is not None:
            on_output(piece)

    async for chunk in stdout:
        size += len(chunk)
        take(decoder.decode(chunk))
        if size > MAX_OUTPUT:
            return "".join(pieces), False
    take(decoder.decode(b"", final=True))
    return "".join(pieces), True
