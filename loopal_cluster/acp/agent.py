"""The ``acp`` protocol: a program that speaks the Agent Client Protocol, as a type of agent.

Each agent is a process of its own with one session in it. A message is the prompt of a turn, and what comes
meanwhile waits in the inbox for the next; an interrupt cancels the turn. The answer is the result, and what
ends a turn otherwise, a refusal or a limit, is an outcome in words. A permission is asked for like that of any
agent, of whoever operates the cluster.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress

import trio
from attrs import field

from loopal_cluster.acp.client import AcpError, Client, LoginNeeded, PeerGone, Session
from loopal_cluster.acp.hub_turn import HubTurn, failed
from loopal_cluster.acp.modes import PLAN, choose_mode
from loopal_cluster.acp.presets import PRESETS, Preset
from loopal_cluster.acp.program import Command, Program
from loopal_cluster.acp.schema import Update
from loopal_cluster.acp.worktree import Worktree, open_worktree
from loopal_cluster.agents.children import ChildNotStarted
from loopal_cluster.agents.context import AgentContext, Streamed, TurnEnds
from loopal_cluster.agents.session import serve_session
from loopal_cluster.agents.types import Place, RunningAgent
from loopal_cluster.errors import ClusterError
from loopal_cluster.links.background import open_background
from loopal_cluster.links.channels import record_pair
from loopal_cluster.outcomes import Failed
from loopal_cluster.payloads import AutoModeDecision, Error
from loopal_cluster.records import record
from loopal_cluster.tools.quoting import as_prompt

__all__ = ["AcpAgent"]

ANSWER_TIMEOUT = 60.0
"""Seconds for a session to be opened, or set up."""


GO_ON = (
    "(The program you run in ended in the middle of this turn, and was started again. "
    "See what is done already, then go on.)\n\n"
)


def _argv(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(words)


def _known_preset(_: object, __: object, name: str | None) -> None:
    if name is not None and name not in PRESETS:
        raise ValueError(f"no preset {name!r} (there are: {', '.join(PRESETS)})")


@record
class AcpAgent:
    """A program that speaks ACP on its standard input and output: ``AcpAgent(preset="claude")``."""

    argv: Sequence[str] = field(default=(), converter=_argv)
    """How it is started; by default as its preset says."""
    preset: str | None = field(default=None, validator=_known_preset)
    """Which of the ``PRESETS`` it is, if it is one."""
    env: Mapping[str, str] = field(factory=dict)
    cwd: str | None = None
    model: str | None = None
    """The model, by the program's own name; a spawn may ask for another."""
    mode: str | None = None
    """How it works, by the program's own name; while it is to plan, that is its mode ``plan``.

    If none is named, an agent that is supervised works in a mode in which it asks before it changes anything.
    """
    asks: bool = False
    """Whether it is known to ask before it changes anything, in whatever mode it begins. The presets need not say so."""
    options: Mapping[str, str] = field(factory=dict)
    """Other settings of its sessions, by their ids."""
    auth: str | None = None
    """The login method to choose, if it needs one to be chosen."""
    worktree: bool = False
    """Whether each agent gets a git worktree of its own."""
    resume: bool = False
    """Whether it is started again, with its session, if it ends when it should not."""
    allow_cluster_tools: bool = False
    """Whether it may use the cluster's own tools without asking. They ask themselves, on a supervised hub."""
    cancel_timeout: float = 10.0
    """Seconds to end a turn that was cancelled; then it is killed. Good programs take 20 ms."""

    def __attrs_post_init__(self) -> None:
        if not (self.argv or self.preset):
            raise ValueError("neither a command nor a preset is given")

    @asynccontextmanager
    async def open(self, place: Place) -> AsyncIterator[RunningAgent]:
        """Start the program, in a process group of its own and, if so wished, in a worktree of its own."""
        asking = self._known.asking_env if place.supervised else {}
        env = place.environment({**asking, **self.env})
        cwd = str(await trio.Path(self.cwd or place.cwd).absolute())
        async with AsyncExitStack() as stack:
            worktree = None
            if self.worktree:
                name = _worktree_name(place)
                worktree = await stack.enter_async_context(open_worktree(cwd, name, env))
                cwd = worktree.cwd
            entries = stack.enter_context(ExitStack())
            nursery = await stack.enter_async_context(open_background())
            command = self._command(env, cwd, place)
            agent = _Agent(self, place, command, worktree, nursery, entries)
            await agent.start_program()
            nursery.start_soon(agent.run_session)
            yield agent

    @property
    def _known(self) -> Preset:
        """What there is to know of it."""
        return PRESETS.get(self.preset or "", Preset(tuple(self.argv)))

    def _command(self, env: Mapping[str, str], cwd: str, place: Place) -> Command:
        known = self._known
        auth = self.auth or next((method for name, method in known.auth.items() if env.get(name)), None)
        argv = self.argv or known.command
        return Command(
            name=self.preset or os.path.basename(argv[0]),
            argv=argv,
            env=env,
            cwd=cwd,
            grace=place.end_grace * 2 / 3,  # the first third is for its turn to end
            guard=place.guard,
            auth=auth,
            install=known.install,
            login=known.login,
        )


def _worktree_name(place: Place) -> str:
    name = re.sub(r"[^A-Za-z0-9_-]", "-", place.name).strip("-") or "agent"
    return f"{name}-{place.ambient.new_id()[:8]}"


class _Agent:
    """One agent: its program, which may be started anew, and its session, which goes on."""

    def __init__(
        self,
        type_: AcpAgent,
        place: Place,
        command: Command,
        worktree: Worktree | None,
        nursery: trio.Nursery,
        entries: ExitStack,
    ) -> None:
        self.channel, self._agent_end = record_pair()
        self._type = type_
        self._place = place
        self._command = command
        self._worktree = worktree
        self._nursery = nursery
        self._entries = entries
        self._mcp_servers: list[Mapping[str, object]] | None = None
        self._program: Program
        self._client: Client | None = None
        self._session: Session | None = None
        self._model: str | None = None
        self._mode: str | None = None
        self._acting_mode: str | None = None
        """The mode in which it works while it does not plan."""
        self._is_put_back = False
        """Whether a session that went over to another mode is just put back."""
        self._serving = trio.CancelScope()
        self._served = trio.Event()
        self._idle = trio.Event()
        self._idle.set()
        self._is_over = False
        self._untold = ""
        """What the model does not know of its last turn."""

    async def start_program(self) -> None:
        """Start the process. That it then introduces itself is waited for by the first turn."""
        self._program = Program(self._command)
        await self._program.start(self._nursery)
        self._nursery.start_soon(self._watch, self._program)

    async def run_session(self) -> None:
        """Be the agent that the hub talks to."""
        try:
            with self._serving:
                place = self._place
                await serve_session(
                    self._agent_end,
                    self._take_turn,
                    limits=place.limits,
                    ambient=place.ambient,
                    prompt_of=as_prompt,
                )
        finally:
            self._served.set()

    async def stop(self) -> str:
        """End it, for certain."""
        await self.channel.aclose()  # which cancels its turn
        with trio.move_on_after(self._place.end_grace / 3):
            await self._served.wait()
        return await self._program.stop()

    async def _watch(self, program: Program) -> None:
        """When a program has ended between two turns, so has the agent."""
        await program.ended.wait()
        await self._idle.wait()
        if not (self._can_go_on or self._is_over):
            self._serving.cancel()

    @property
    def _can_go_on(self) -> bool:
        """Whether a program that is started anew knows what was said before."""
        return self._type.resume and self._client is not None and self._client.can_resume

    # A turn.

    async def _take_turn(self, context: AgentContext, prompt: str) -> Streamed:
        self._idle = trio.Event()
        try:
            answers = [await self._answer(context, prompt)]
            if not context.persistent:
                answers += await self._answer_messages(context)
            return Streamed("\n\n".join(filter(None, answers)))
        except LoginNeeded as error:
            hint = f" ({self._command.login})" if self._command.login else ""
            raise failed(f"{self._command.name} needs a login: {error}{hint}") from error
        except AcpError as error:
            raise failed(f"{self._command.name}: {error}") from error
        finally:
            self._kill_if_stuck()
            self._idle.set()

    async def _answer_messages(self, context: AgentContext) -> list[str]:
        """A turn for each message that has come meanwhile; for one that is persistent, its session does that.

        The work is done, and what goes wrong now does not take its result away.
        """
        answers = []
        while (received := context.receive_nowait()) is not None:
            try:
                if received.wants_reply:
                    with received.scope:
                        received.reply(await self._answer(context, as_prompt(received)))
                else:
                    answers.append(await self._answer(context, as_prompt(received)))
            except (TurnEnds, AcpError) as error:
                context.emit(Error(f"a message was not answered: {error}"))
                if received.wants_reply:
                    received.settle(error.outcome if isinstance(error, TurnEnds) else Failed(str(error)))
                if self._is_over:
                    break
        return answers

    async def _answer(self, context: AgentContext, prompt: str) -> str:
        """The answer to a prompt, if need be from a program that was started anew.

        Raises:
            TurnEnds: there is none; this is the outcome.
            LoginNeeded, AcpError: the program refused.
        """
        for again in (False, True):
            with suppress(PeerGone):
                return await self._answer_once(context, GO_ON + prompt if again else prompt)
            await self._program.ended.wait()
            if again or not self._can_go_on:
                break
            context.emit(
                Error(f"{self._command.name} is started again; it has ended: {self._program.ending}")
            )
        raise await self._died()

    async def _died(self) -> TurnEnds:
        when = "could not be used" if self._client is None else "ended in the middle of its turn"
        error = f"{self._command.name} {when}: {self._program.ending}{await self._worktree_note()}"
        self._is_over = True
        return failed(error, final=True)

    async def _answer_once(self, context: AgentContext, prompt: str) -> str:
        session = await self._open_session(context)
        turn = HubTurn(context, self._type, self._agent_name, self._own_servers)

        def take(update: Update) -> None:
            turn.transcript.take(update)
            if self._strays(session) and not self._is_put_back:
                self._is_put_back = True
                self._nursery.start_soon(self._put_back, context, session)

        end = await session.prompt(
            self._untold + prompt,
            on_update=take,
            on_permission=turn.judge,
            cancel_timeout=self._type.cancel_timeout,
        )
        turn.transcript.on_usage(end.usage)
        self._untold = f"[In your last turn {turn.unanswered}]\n\n" if turn.unanswered else ""
        note = await self._worktree_note()
        return turn.result_of(end, note)

    async def _worktree_note(self) -> str:
        """Where the work is, if there is any."""
        worktree = self._worktree
        if worktree is None:
            return ""
        try:
            if not await worktree.has_changes():
                return ""
        except ClusterError as error:
            return f"\n\n[worktree {worktree.path}, branch {worktree.branch}; git: {error}]"
        return f"\n\n[changes are in the worktree {worktree.path}, branch {worktree.branch}]"

    @property
    def _own_servers(self) -> frozenset[str]:
        """What our MCP server is called in its session, if it has one."""
        return frozenset(str(server["name"]) for server in self._mcp_servers or ())

    @property
    def _agent_name(self) -> str:
        """What the program calls itself."""
        info = None if self._client is None else self._client.program.agent_info
        return "" if info is None else info.name

    # A session.

    async def _open_session(self, context: AgentContext) -> Session:
        """The session, on the program that runs now, with the settings that are wanted now.

        Raises:
            LoginNeeded, AcpError: there is none, or not with these settings.
            PeerGone: the program has ended.
        """
        if self._program.ended.is_set() or self._kill_if_stuck():
            await self._start_again()
        client = await self._program.client()
        try:
            with trio.fail_after(ANSWER_TIMEOUT):
                session = self._session
                if session is None or client is not self._client:
                    session = await self._begin_session(context, client)
                await self._choose(context, session)
        except trio.TooSlowError:
            raise AcpError(f"its session was not ready within {ANSWER_TIMEOUT:g} s") from None
        return session

    def _kill_if_stuck(self) -> bool:
        """End a program whose last turn does not end: there cannot be another one."""
        is_stuck = self._session is not None and self._session.is_stuck
        if is_stuck:
            self._program.kill("it did not end its turn when it was told to")
        return is_stuck

    async def _start_again(self) -> None:
        await self._program.ended.wait()
        if not self._can_go_on:
            raise PeerGone(self._program.ending)
        try:
            await self.start_program()
        except ChildNotStarted as error:
            self._is_over = True
            raise failed(str(error), final=True) from error

    async def _begin_session(self, context: AgentContext, client: Client) -> Session:
        servers = self._open_mcp(context, client)
        if self._session is not None:
            session = await client.resume_session(self._session.id, self._command.cwd, servers)
            session.is_like(self._session)
        else:
            session = await client.new_session(self._command.cwd, servers)
        for option, value in self._options_of(session).items():
            await session.set_option(option, value)
        self._acting_mode = self._type.mode or session.mode
        if self._place.supervised:
            self._supervise(context, session)
        self._client, self._session = client, session
        self._model, self._mode = None, None
        return session

    def _options_of(self, session: Session) -> Mapping[str, str]:
        asking = self._type._known.asking_options if self._place.supervised else {}
        there = {option.id for option in session.options}
        return {key: value for key, value in asking.items() if key in there} | dict(self._type.options)

    def _supervise(self, context: AgentContext, session: Session) -> None:
        """Choose a mode in which it asks, and say which.

        Raises:
            AcpError: nobody knows one.
        """
        type_ = self._type
        chosen = choose_mode(
            type_._known,
            first=session.mode,
            there_are=session.mode_ids,
            named=type_.mode or type_.options.get("mode"),
            vouched=type_.asks,
        )
        self._acting_mode = chosen.mode
        context.emit(AutoModeDecision("mode", chosen.mode or "", f"{self._command.name}: {chosen.why}"))

    def _open_mcp(self, context: AgentContext, client: Client) -> list[Mapping[str, object]]:
        if self._mcp_servers is None:
            self._mcp_servers = []
            if (door := self._place.mcp) is not None:
                http = client.program.agent_capabilities.mcp_capabilities.http
                self._mcp_servers.append(self._entries.enter_context(door.open_entry(context, http=http)))
        return self._mcp_servers

    async def _choose(self, context: AgentContext, session: Session) -> None:
        """Set what is wanted, when it has changed: what the program itself changes meanwhile stays."""
        model = context.model or self._type.model
        if model is not None and model != self._model:
            await session.set_model(model)
        self._model = model
        mode = PLAN if context.mode == "plan" else self._acting_mode
        current = session.mode if self._strays(session) else self._mode or session.mode
        if mode is not None and mode != current:
            await session.set_mode(mode)
        self._mode = mode

    def _strays(self, session: Session) -> bool:
        """Whether it has by itself gone over to a mode that nobody has chosen, where it matters."""
        return (
            self._place.supervised
            and self._acting_mode is not None
            and session.mode not in (self._acting_mode, PLAN)
        )

    async def _put_back(self, context: AgentContext, session: Session) -> None:
        """Have it work as was chosen; a program that cannot be had to is ended."""
        context.emit(
            Error(
                f"{self._command.name} went over to its mode {session.mode!r} by itself, "
                f"and is put back into {self._acting_mode!r}"
            )
        )
        try:
            with trio.fail_after(ANSWER_TIMEOUT):
                await session.set_mode(str(self._acting_mode))
        except (AcpError, PeerGone, trio.TooSlowError):
            self._program.kill(f"it went over to its mode {session.mode!r} by itself, and cannot be put back")
        finally:
            self._is_put_back = False
