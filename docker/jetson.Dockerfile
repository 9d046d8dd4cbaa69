# musc-edge for a Jetson with JetPack 6 (L4T r36): TensorRT, and CUDA through pycuda.  Build it on a Jetson.
#
#   docker build -f docker/jetson.Dockerfile -t musc-edge-jetson .
#   sudo install -d -o 10001 results
#   docker run --rm --runtime nvidia --network none \
#     -v musc-edge-cache:/cache -v "$PWD/bundle:/bundle:ro" -v "$PWD/lot:/lot:ro" -v "$PWD/results:/results" \
#     musc-edge-jetson infer /lot -o /results/lot
#
# It takes BuildKit, Docker's builder since 23.0.  Never built and never run: neither Docker nor a Jetson was at hand
# (docs/machines.md).
ARG BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
# hadolint ignore=DL3006
FROM ${BASE} AS build
ARG EXTRAS=cpu,fast,cuda
# Of this image's Ubuntu, which NVIDIA keeps for its release of L4T: a version named here would be gone with the next.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ python3-dev python3-pip python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# pycuda is compiled here, once; the image that runs needs neither compiler nor headers for it.
RUN python3 -m venv /opt/build \
    && PYTHON=/opt/build/bin/python tools/wheelhouse.sh /wheels "${EXTRAS}"

# hadolint ignore=DL3006
FROM ${BASE}
ARG EXTRAS=cpu,fast,cuda
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
# TensorRT's Python module is the base's.  It is only looked for: libraries that it needs come in when a container
# starts with NVIDIA's runtime.  What pip brings goes before the system's.
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    python3 -c 'import importlib.util as u; assert u.find_spec("tensorrt"), "the base has no tensorrt for Python"' \
    && python3 -m venv --system-site-packages /opt/musc-edge \
    && /opt/musc-edge/bin/python -m pip install --no-cache-dir --no-index --find-links /wheels \
        "musc-edge[${EXTRAS}]"
ENV PATH=/opt/musc-edge/bin:$PATH \
    XDG_CACHE_HOME=/cache \
    NUMBA_CACHE_DIR=/cache/numba \
    MUSC_EDGE_BUNDLE=/bundle
RUN useradd --uid 10001 --no-create-home --home-dir /cache musc-edge \
    && usermod -aG video musc-edge \
    && install -d -o musc-edge -g musc-edge /cache /results
USER 10001
WORKDIR /results
ENTRYPOINT ["musc-edge"]
CMD ["doctor"]
