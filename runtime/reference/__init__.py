"""A reference: images of a lot that was accepted once, against which single images are checked.

``make.py`` makes its folder, ``files.py`` writes and opens it, ``checker.py`` checks images.
"""
