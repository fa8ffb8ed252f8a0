# gridgov with its pinned dependencies, for compose.yaml. It holds no key and no setting.
FROM python:3.11.14-slim-bookworm

WORKDIR /gridgov
COPY requirements.lock pyproject.toml ./
RUN pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements.lock
COPY gridgov gridgov
COPY sim sim
COPY dashboard dashboard
COPY prompts prompts
COPY scenarios scenarios
COPY n8n n8n
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
    && useradd --create-home gridgov \
    && mkdir runs \
    && chown gridgov runs
USER gridgov
ENTRYPOINT ["gridgov"]
