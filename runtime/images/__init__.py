"""From files to pixels: which files a lot has, what each holds, and the one way to read it."""
