# One image for web, worker and beat. It compiles nothing at build time; gcc stays for the trainers' own kernels.
FROM python:3.11-slim-bookworm

RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc g++ libc6-dev \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 r1
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY --chown=r1:r1 . .
RUN mkdir -p /data && chown r1:r1 /data
USER r1
ENV R1_HOME=/data PYTHONUNBUFFERED=1
VOLUME /data
ENTRYPOINT ["python", "manage.py"]
CMD ["up", "--host", "0.0.0.0"]
