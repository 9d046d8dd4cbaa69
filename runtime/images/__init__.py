"""From files to pixels: list a lot's files, check what each holds, and read it the one way there is."""
