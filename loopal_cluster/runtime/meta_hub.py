"""A MetaHub: ``MetaHubCore`` with listeners. Open one in a program, or serve one for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Unpack

import trio
from attrs import field

from loopal_cluster.config import Limits, MetaHubSettings, Timeouts
from loopal_cluster.core.effects import Disconnect, Effect
from loopal_cluster.core.events import Link, TokensGiven
from loopal_cluster.core.meta_hub import MetaHubCore
from loopal_cluster.errors import ConfigError
from loopal_cluster.links.ambient import Ambient
from loopal_cluster.links.background import open_background, require_trio
from loopal_cluster.links.channels import FrameChannel, record_pair
from loopal_cluster.links.client import Client, ClientOptions, open_client
from loopal_cluster.links.listeners import accept_connections, address_of, open_listeners
from loopal_cluster.links.logs import get_logger
from loopal_cluster.links.sockets import PATIENCE
from loopal_cluster.records import define
from loopal_cluster.runtime.runtime import Runtime, open_runtime
from loopal_cluster.runtime.tokens import Tokens, tokens_of

__all__ = ["MetaHub", "open_meta_hub", "serve_meta_hub"]

logger = get_logger(__name__)


@define(eq=False)
class MetaHub:
    """A running MetaHub. Made by ``open_meta_hub``."""

    addresses: tuple[str, ...]
    """Where it listens: ``HOST:PORT`` with the real port, or ``unix:PATH``."""
    core: MetaHubCore = field(repr=False)
    _runtime: Runtime = field(repr=False)
    _nursery: trio.Nursery = field(repr=False)
    _ambient: Ambient = field(repr=False)
    _tokens: Tokens = field(repr=False)
    _trouble: str = field(default="", repr=False, init=False)
    """Why they could not be read the last time."""

    @property
    def token(self) -> str:
        """What hubs and clients must bring; the first, if there are several."""
        return self.core.tokens[0]

    @property
    def address(self) -> str:
        """The first of ``addresses``."""
        return self.addresses[0]

    def attach(self, channel: FrameChannel) -> None:
        """Serve one more connection, however it was made."""
        self._nursery.start_soon(self._serve, channel)

    async def _serve(self, channel: FrameChannel) -> None:
        self._read_tokens()
        # A hub's silence is judged by its heartbeats, and a client's, once it is one, sooner.
        channel.be_patient(max(PATIENCE, self.core.settings.timeouts.lost_timeout))
        await self._runtime.serve(channel, Link.ACCEPTED)

    def _read_tokens(self) -> None:
        try:
            tokens, trouble = tokens_of(self._tokens), ""
        except ConfigError as error:
            tokens, trouble = self.core.tokens, str(error)
        if trouble and trouble != self._trouble:  # once, and not for each connection
            logger.warning("%s; those that there were before are used on", trouble)
        self._trouble = trouble
        if tokens != self.core.tokens:
            logger.info("the tokens have changed; there are %d", len(tokens))
            self._runtime.dispatch(TokensGiven(tokens))

    @asynccontextmanager
    async def open_client(
        self, *, name: str = "program", **options: Unpack[ClientOptions]
    ) -> AsyncIterator[Client]:
        """Be a client of this MetaHub, in its own process; the options are those of ``Hub.open_client``."""
        ours, theirs = record_pair()
        self.attach(theirs)
        async with open_client(ours, name=name, token=self.token, ambient=self._ambient, **options) as client:
            yield client


@asynccontextmanager
async def open_meta_hub(
    bind: str | None = "127.0.0.1:0",
    *,
    token: Tokens | None = None,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    ambient: Ambient | None = None,
) -> AsyncIterator[MetaHub]:
    """Run a MetaHub for the length of the block.

    ``bind`` is ``HOST:PORT``, ``unix:PATH``, or None to listen nowhere (``MetaHub.attach`` then brings
    connections). Without a ``token`` a new one is made; a function that returns several is called for each connection,
    and whoever brings one of them is let in.

    Raises:
        ConfigError: ``bind`` cannot be listened on, or there is no token.
    """
    require_trio()
    ambient = ambient or Ambient()
    cluster, token = ambient.new_id(), token or ambient.new_id()
    settings = MetaHubSettings(
        cluster=cluster,
        token=tokens_of(token)[0],
        timeouts=timeouts or Timeouts(),
        limits=limits or Limits(),
    )
    epoch = ambient.time() - trio.current_time()
    core = MetaHubCore(settings, new_id=ambient.new_id, epoch=epoch)
    async with (
        open_listeners([] if bind is None else [bind]) as listeners,
        open_runtime(core, settings.limits, logger, _perform) as runtime,
        open_background() as nursery,
    ):
        addresses = tuple(address_of(listener) for listener in listeners)
        meta_hub = MetaHub(addresses, core, runtime, nursery, ambient, token)
        nursery.start_soon(
            accept_connections,
            listeners,
            meta_hub._serve,
            nursery,
            settings.limits.line_bytes,
            runtime.admission.unaccepted,
        )
        yield meta_hub


async def serve_meta_hub(
    bind: str = "127.0.0.1:9900",
    *,
    token: Tokens | None = None,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    task_status: trio.TaskStatus[MetaHub] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a MetaHub until cancelled; for ``nursery.start``, which gives the ``MetaHub``."""
    async with open_meta_hub(bind, token=token, timeouts=timeouts, limits=limits) as meta_hub:
        task_status.started(meta_hub)
        await trio.sleep_forever()


def _perform(effect: Effect) -> None:
    assert isinstance(effect, Disconnect), effect  # which the runtime has seen to
