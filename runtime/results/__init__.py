"""The result of scoring a lot, and all the files that are written from it."""
