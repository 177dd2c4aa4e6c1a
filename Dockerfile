FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1
WORKDIR /app

COPY requirements.lock ./
RUN pip install --require-hashes --requirement requirements.lock

# Owned by root: the worker cannot change its own code. It writes to /state only.
RUN useradd --create-home --uid 10001 recovery && install --directory --owner=recovery --mode=0700 /state
COPY recovery recovery/
COPY runbooks runbooks/
COPY activities activities/
COPY workflows workflows/
COPY worker.py ./

USER recovery
CMD ["python", "worker.py"]
