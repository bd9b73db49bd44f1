# One image for every stage. `make image` builds it; Kubeflow runs each task in it, on this machine or on a cluster.
# The base: any Debian or Ubuntu with Python 3.11 or newer and its venv module.
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE}

ARG UV_VERSION=0.13.9
# Which torch build: empty for the package index's own, or what uv's --torch-backend knows: cpu, cu126, cu128 ...
ARG TORCH_BACKEND=

# The dependencies, several GB: built again only when one of these two files changes. Compiled here, since the user
# below can write no bytecode: torch, open_clip and mlflow would be compiled at the start of every task. Of kfp, a task
# needs only the executor, which imports nothing else; the rest of the extra `pipeline` compiles and submits.
WORKDIR /app
COPY requirements.txt pyproject.toml ./
RUN python3 -m venv /opt/venv \
    && python3 -m venv /tmp/uv \
    && /tmp/uv/bin/pip install --quiet --no-cache-dir uv==${UV_VERSION} \
    && export VIRTUAL_ENV=/opt/venv UV_CONSTRAINT=requirements.txt UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1 \
    && /tmp/uv/bin/uv pip install ${TORCH_BACKEND:+--torch-backend=${TORCH_BACKEND}} \
        --requirements pyproject.toml --extra stages --extra search \
    && /tmp/uv/bin/uv pip install --no-deps kfp \
    && rm -rf /tmp/uv* /opt/venv/.lock

# Any user id can run the image, as clusters that choose one at random demand: no id has an entry in /etc/passwd,
# and HOME, where libraries keep their caches, is open to all.
RUN mkdir --mode=1777 /home/irra
ENV PATH=/opt/venv/bin:${PATH} HOME=/home/irra USER=irra PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

COPY README.md LICENSE ./
COPY irra irra
COPY components components
COPY app app
RUN pip install --quiet --no-cache-dir --no-index --no-deps --no-build-isolation --editable . \
    && python -m compileall -q irra components app

USER 10001:0
ENTRYPOINT []
CMD ["irra", "--help"]

ARG GIT_COMMIT=unknown
ENV GIT_COMMIT=${GIT_COMMIT}
LABEL org.opencontainers.image.title="irra-pipeline" \
      org.opencontainers.image.description="Text-to-image person retrieval (IRRA): the stages of the pipeline" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.revision="${GIT_COMMIT}"
