# One image for every stage. `make image` builds it; Kubeflow runs each task in it, on this machine or on a cluster.
# The base: any Debian or Ubuntu with Python 3.11 or newer and its venv module; a digest fixes it (docs/supply-chain.md).
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE}

# The torch build: empty for the default of the package index, or a value of uv's --torch-backend: cpu, cu126, cu128 ...
ARG TORCH_BACKEND=

# The dependencies, several GB: this layer is rebuilt only if one of these two files changes. Only files whose hash is in
# requirements.txt are installed, uv itself included; with TORCH_BACKEND, torch, torchvision and triton come from another
# index and go unchecked. Bytecode is compiled here because the user below cannot write it; otherwise every task would
# compile torch, open_clip and mlflow when it starts. kfp is installed without dependencies: a task needs only its
# executor, which imports no other package. The rest of the extra `pipeline` is for compiling and submitting.
WORKDIR /app
COPY requirements.txt pyproject.toml ./
RUN python3 -m venv /opt/venv \
    && python3 -m venv /tmp/uv \
    && sed -n '/^uv==/,/[^\\]$/p' requirements.txt > /tmp/uv.txt \
    && /tmp/uv/bin/pip install --quiet --no-cache-dir --require-hashes --requirement /tmp/uv.txt \
    && export VIRTUAL_ENV=/opt/venv UV_CONSTRAINT=/tmp/uv-lock.txt UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1 \
    && if [ -z "${TORCH_BACKEND}" ]; then export UV_REQUIRE_HASHES=1 && cp requirements.txt /tmp/uv-lock.txt; \
        else sed -E '/^(torch|torchvision|triton)==/,/[^\\]$/{s/ *\\$//; /^ /d}' requirements.txt > /tmp/uv-lock.txt; fi \
    && /tmp/uv/bin/uv pip install ${TORCH_BACKEND:+--torch-backend=${TORCH_BACKEND}} \
        --requirements pyproject.toml --extra stages --extra kubeflow --extra search \
    && /tmp/uv/bin/uv pip install --no-deps $(grep --only-matching '^kfp==[^ ]*' requirements.txt) \
    && rm -rf /tmp/uv* /opt/venv/.lock

# Any user id can run the image, because some clusters choose a random one: no id needs an entry in /etc/passwd, and
# everyone can write to HOME, where libraries keep their caches.
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
