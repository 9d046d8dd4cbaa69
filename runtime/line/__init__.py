"""Images as a line makes them: checked one at a time, each result recorded once and told to others.

``result_log`` keeps the results, ``station`` checks an image and records what came of it.
"""
