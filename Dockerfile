# The service in a container: docker build -t hf-maskadapter . && docker run -p 127.0.0.1:8000:8000 hf-maskadapter
# docs/learn/container.md tells more, and what of this could be tried.

FROM python:3.11-slim-bookworm AS build
# The CPU build of PyTorch: the default one of Linux brings gigabytes of CUDA libraries along. For GPUs give an empty value.
ARG PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
WORKDIR /build
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src ./src
RUN python -m venv /opt/maskadapter && \
    /opt/maskadapter/bin/pip install --no-cache-dir -c constraints.txt '.[serve]'

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin maskadapter && \
    install --directory --owner=10001 --group=10001 /models
COPY --from=build /opt/maskadapter /opt/maskadapter
# Models lie in the volume, and nothing else is written but what Python's tempfile asks for, in /tmp.
ENV PATH=/opt/maskadapter/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/models/huggingface \
    MASKADAPTER_CACHE=/models/maskadapter
USER 10001:10001
VOLUME /models
EXPOSE 8000
# The first start of a released model downloads and converts it before anything is answered.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30m --start-interval=5s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["maskadapter"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
