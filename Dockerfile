# The server with its model inside, for CPUs or for NVIDIA GPUs.
# Build: make image, or make image DEVICE=gpu. Run: docker run -p 8001:8001 digitserve:cpu
# A release should name its base by digest: --build-arg PYTHON=python:3.11-slim@sha256:...
ARG PYTHON=python:3.11-slim

FROM ${PYTHON} AS build
ARG DEVICE=cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1
RUN python -m venv --without-pip /opt/digitserve
COPY requirements/serve-${DEVICE}.txt /src/requirements/
RUN python -m pip --python /opt/digitserve install --only-binary :all: --require-hashes -r /src/requirements/serve-${DEVICE}.txt
COPY pyproject.toml README.md LICENSE /src/
COPY protos /src/protos
COPY model_export /src/model_export
COPY models/digits/1/model.onnx models/digits/1/manifest.json /src/models/digits/1/
COPY service /src/service
RUN python -m pip --python /opt/digitserve install --no-deps /src
# What a server never opens: training, ONNX Runtime's second copy for C programs and its tools, stubs, sources and tests.
# The model lies at /models alone, where another can be mounted in its place.
WORKDIR /opt/digitserve/lib/python3.11/site-packages
RUN rm -rf model_export service/models \
        onnxruntime/capi/libonnxruntime.so* onnxruntime/datasets onnxruntime/quantization onnxruntime/tools onnxruntime/transformers \
        numpy/distutils numpy/f2py \
    && find . \( -name tests -o -name include \) -type d -prune -exec rm -rf {} + \
    && find . -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.h' -o -name '*.c' -o -name '*.a' \) -delete \
# A read-only root cannot keep bytecode; compiling at every start would cost more than the start itself.
    && python -m compileall -q -j 0 --invalidation-mode unchecked-hash .
# What was removed too much shows here, not in production. The ports are unlikely ones, for builds that share the host's.
# hadolint ignore=DL3001
RUN PATH=/opt/digitserve/bin:$PATH; export DIGITSERVE_DEVICE=cpu DIGITSERVE_MODELS_DIR=/src/models \
        DIGITSERVE_GRPC_PORT=48001 DIGITSERVE_HTTP_PORT=48000 DIGITSERVE_OPS_PORT=48002; \
    digitserve serve & server=$!; trap 'kill $server' EXIT; \
    tries=60; until digitserve healthcheck --timeout-s 1 2>/dev/null || [ $((tries -= 1)) = 0 ]; do sleep 0.5; done; \
    digitserve classify /src/service/examples

FROM ${PYTHON}
# Nobody installs anything in a container that runs.
RUN python -m pip uninstall --yes --quiet --root-user-action ignore setuptools wheel pip
COPY --from=build /opt/digitserve /opt/digitserve
COPY --from=build /src/models /models
# LD_LIBRARY_PATH is where CUDA's wheels put their libraries, the parts of cuDNN that are loaded late included.
ENV PATH=/opt/digitserve/bin:$PATH \
    LD_LIBRARY_PATH=/opt/digitserve/lib/python3.11/site-packages/nvidia/cu13/lib:/opt/digitserve/lib/python3.11/site-packages/nvidia/cudnn/lib \
    PYTHONDONTWRITEBYTECODE=1 \
    DIGITSERVE_HOST=0.0.0.0 \
    DIGITSERVE_MODELS_DIR=/models \
    DIGITSERVE_DRAIN_DELAY_S=5
WORKDIR /
USER 65532:65532
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["digitserve", "healthcheck", "--timeout-s", "4"]
ENTRYPOINT ["digitserve"]
CMD ["serve"]
ARG VERSION=unknown
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="digitserve" \
      org.opencontainers.image.description="Reads handwritten digits over gRPC, HTTP and the Open Inference Protocol" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}"
