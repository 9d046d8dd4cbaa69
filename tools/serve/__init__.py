"""``musc-edge serve``: images of a line checked over HTTP.

``command`` is the command line, ``app`` the routes, ``service`` the way of an image from its bytes to its
result, ``bodies`` how the bytes come in, ``guard`` whom the server answers, ``connections`` how long it
waits.
"""
