"""What the scoring of a lot gave, and everything that is written of it."""
