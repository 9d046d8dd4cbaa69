"""Tells schemathesis what images are: what is sent as an image is sometimes one."""

from __future__ import annotations

import schemathesis
from hypothesis import strategies as st

from support.served import encoded

IMAGES = st.sampled_from([encoded(seed) for seed in (50, 51)]) | st.binary(max_size=2000)

for kind in ("png", "jpeg"):
    schemathesis.openapi.media_type(f"image/{kind}", IMAGES)
schemathesis.openapi.media_type("application/octet-stream", IMAGES)
