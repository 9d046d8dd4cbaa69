"""Arrays of a lot in memory, in files or on a GPU, and the work that is kept of an interrupted run."""
