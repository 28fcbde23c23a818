FROM python:3.13-slim AS build

COPY requirements-run.lock /build/
RUN python -m venv --without-pip /opt/venv \
 && pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
        --no-deps --require-hashes -r /build/requirements-run.lock
COPY app /build/app
# Independent of the builder's umask, all users may read the code and only root may change it. The root file system is
# often mounted read-only, so bytecode is compiled here.
RUN chmod -R u=rwX,go=rX /build/app \
 && python -m compileall -q --invalidation-mode unchecked-hash /build/app


FROM python:3.13-slim

ARG REVISION=unknown
LABEL org.opencontainers.image.title="llm-server" \
      org.opencontainers.image.description="vLLM's HTTP interface, backed by the OpenAI API" \
      org.opencontainers.image.revision="$REVISION"

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# Outside /app, so that a volume mounted there does not hide the dependencies.
COPY --from=build /opt/venv /opt/venv
COPY --from=build /build/app /app/app
WORKDIR /app

# Numeric, so that Kubernetes can verify that it is not root (`runAsNonRoot`).
USER 10001:10001
EXPOSE 8002
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-m", "app.healthcheck"]
ENTRYPOINT ["python", "-m", "app"]
