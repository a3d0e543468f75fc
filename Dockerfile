# The image of compose.yaml: the project with its libraries, for the server and for workers.
FROM python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3

# Triton compiles what launches its kernels; git names the revision of local sources.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc git libc6-dev \
 && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home codetune \
 && install --directory --owner=codetune /codetune /store /cache /home/codetune/.prefect
WORKDIR /codetune

# The libraries alone first: an edited source does not install them again.
COPY requirements.txt ./
RUN pip install --no-cache-dir --no-deps --require-hashes --requirement requirements.txt

COPY . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable .

USER codetune
