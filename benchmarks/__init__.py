"""What is measured of the product with real processes. Not installed with it."""
