"""``python -P -m loopal_cluster.agents MODULE:NAME``: an async function as an agent executable."""

import gc
import os
import sys

if __name__ == "__main__":
    # Without -P this is what ``-m`` has put there. The agent works in somebody's project, whose modules must not
    # be taken for ours, nor for the agent.
    if not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]
    # What is imported stays: to look through it again and again is a tenth of the time in which an agent starts.
    gc.disable()
    from loopal_cluster.agents.child import main

    gc.freeze()
    gc.enable()
    main()
