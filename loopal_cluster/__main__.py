"""``python -m loopal_cluster``: the same program as ``loopal-cluster``."""

from loopal_cluster.cli.app import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
