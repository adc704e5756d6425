"""One party's end of a connection, where it begins and ends."""

from __future__ import annotations

import trio

from loopal_cluster import open_hub


async def test_a_client_that_is_opened_in_a_cancelled_scope_is_closed_again():
    async with open_hub("solo") as hub:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with hub.open_client():
                await trio.lowlevel.checkpoint()

        assert scope.cancelled_caught
