# Person2 in a container: no root, no compiler, the bundled model inside. See “In a container” in README.md.
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/person2
ENV PATH=/opt/person2/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# PyTorch's index of CPU builds, given as this build argument, saves several gigabytes of CUDA libraries.
ARG PIP_EXTRA_INDEX_URL=
COPY constraints.txt pyproject.toml hatch_build.py README.md LICENSE ./
RUN pip install --constraint constraints.txt torch
COPY person2 person2
COPY core core
COPY bots bots
COPY training training
COPY migrations migrations
COPY models models
RUN pip install --constraint constraints.txt '.[postgres]'

FROM python:3.11-slim
RUN groupadd --gid 10001 person2 \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data person2 \
 && install -d -o person2 -g person2 /data
COPY --from=build /opt/person2 /opt/person2
ENV PATH=/opt/person2/bin:$PATH \
    PERSON2_HOME=/data \
    HF_HOME=/data/huggingface \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PERSON2_LOG_FORMAT=json
USER person2
WORKDIR /data
VOLUME /data
# The first start may fetch a base model. `person2 alive` only reads the bots' heartbeat files.
HEALTHCHECK --interval=30s --timeout=15s --start-period=5m --retries=3 CMD ["person2", "alive"]
ENTRYPOINT ["person2"]
CMD ["run"]
