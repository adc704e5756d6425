"""What ``loopal-cluster demo`` shows: three hubs, and agents that do real work on real files."""
