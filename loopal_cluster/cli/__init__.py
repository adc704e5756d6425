"""The command ``loopal-cluster``: what is typed, shown and returned, and nothing else."""
