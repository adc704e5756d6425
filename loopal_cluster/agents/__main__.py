"""``python -m loopal_cluster.agents MODULE:NAME``: an async function as an agent executable."""

import gc

if __name__ == "__main__":
    # What is imported stays: to look through it again and again is a tenth of the time in which an agent starts.
    gc.disable()
    from loopal_cluster.agents.child import main

    gc.freeze()
    gc.enable()
    main()
