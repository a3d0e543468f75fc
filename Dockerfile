# The image of compose.yaml: the project with its libraries, for the server and for workers.
FROM python:3.11-slim

# Triton compiles what launches its kernels; git names the revision of local sources.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc git libc6-dev \
 && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home codetune \
 && install --directory --owner=codetune /codetune /store /cache /home/codetune/.prefect
WORKDIR /codetune

# The libraries alone first: an edited source does not install them again.
COPY pyproject.toml constraints.txt ./
RUN python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' > /tmp/requirements.txt \
 && pip install --no-cache-dir --constraint constraints.txt --requirement /tmp/requirements.txt

COPY . .
RUN pip install --no-cache-dir --no-deps --editable .

USER codetune
