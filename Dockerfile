# The locked environment and this checkout, without data: docs/development.md tells how to build and run it.
FROM python:3.11-slim-bookworm

# Where torch comes from: PyTorch's wheels for CPUs, or https://pypi.org/simple: those for NVIDIA, with its libraries.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=paper,fetch,web

# Any git will do, so none is pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    && mkdir /project /opt/venv \
    && chown 1000:1000 /project /opt/venv

USER 1000:1000
WORKDIR /project
RUN python -m venv /opt/venv
# A home for every user: docker run --user, which a mounted checkout wants, may name one that has none.
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp

# Before the sources, so that an edit of these downloads nothing again; the install points to /project/src.
COPY --chown=1000:1000 pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir src \
    && pip install --no-cache-dir -e ".[$EXTRAS]" -c constraints.txt --extra-index-url "$TORCH_INDEX"

COPY --chown=1000:1000 . .
CMD ["dvc", "repro"]
