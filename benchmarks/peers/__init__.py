"""What others do with the whole path: each peer in an environment of its own, asking in the shape in which we ask."""
