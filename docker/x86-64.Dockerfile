# musc-edge for a processor of x86-64: scores lots on the CPU, as a user without rights.
#
#   docker build -f docker/x86-64.Dockerfile -t musc-edge .
#   sudo install -d -o 10001 results
#   docker run --rm --network none --read-only --tmpfs /tmp -v musc-edge-cache:/cache \
#     -v "$PWD/bundle:/bundle:ro" -v "$PWD/lot:/lot:ro" -v "$PWD/results:/results" musc-edge infer /lot -o /results/lot
#
# Never built: there was no Docker where this was written.  docs/machines.md says what was tried instead.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim AS build
# Other extras, such as watch, serve, mqtt or formats: --build-arg EXTRAS=cpu,fast,watch
ARG EXTRAS=cpu,fast
WORKDIR /src
COPY . .
RUN python -m venv /opt/musc-edge \
    && /opt/musc-edge/bin/python -m pip install --no-cache-dir -c constraints.txt ".[${EXTRAS}]" \
    && /opt/musc-edge/bin/python -m pip uninstall -y pip

FROM python:${PYTHON}-slim
COPY --from=build /opt/musc-edge /opt/musc-edge
# What numba compiles is kept in /cache: a volume, or each container compiles for some seconds.  Only who writes
# it may run what is in it: musc-edge compiles anew where others could have written.
ENV PATH=/opt/musc-edge/bin:$PATH \
    XDG_CACHE_HOME=/cache \
    NUMBA_CACHE_DIR=/cache/numba \
    MUSC_EDGE_BUNDLE=/bundle
RUN useradd --uid 10001 --no-create-home --home-dir /cache musc-edge \
    && install -d -o musc-edge -g musc-edge /cache /results
USER 10001
WORKDIR /results
ENTRYPOINT ["musc-edge"]
CMD ["doctor"]
