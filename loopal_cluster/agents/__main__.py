"""``python -m loopal_cluster.agents MODULE:NAME``: an async function as an agent executable."""

from loopal_cluster.agents.child import main

if __name__ == "__main__":
    main()
