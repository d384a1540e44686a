# The CPU server, its model inside. Build: make image. Run: docker run -p 8001:8001 digitserve:cpu
ARG PYTHON=python:3.11-slim
FROM ${PYTHON} AS build
RUN python -m venv /opt/digitserve
ENV PATH=/opt/digitserve/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements/serve-cpu.txt /src/requirements/
RUN pip install --require-hashes -r /src/requirements/serve-cpu.txt
COPY pyproject.toml README.md LICENSE /src/
COPY protos /src/protos
COPY model_export /src/model_export
COPY models /src/models
COPY service /src/service
RUN pip install --no-deps /src && pip uninstall -y pip setuptools

FROM ${PYTHON}
COPY --from=build /opt/digitserve /opt/digitserve
ENV PATH=/opt/digitserve/bin:$PATH DIGITSERVE_HOST=0.0.0.0 DIGITSERVE_DRAIN_DELAY_S=5
USER 65532:65532
EXPOSE 8000 8001 8002
HEALTHCHECK CMD ["digitserve", "healthcheck"]
ENTRYPOINT ["digitserve"]
CMD ["serve"]
