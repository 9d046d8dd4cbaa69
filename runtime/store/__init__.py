"""Arrays of a lot in memory, in files or on a GPU, and the work of an interrupted run that is kept."""
