# Python, and what the CPU build of vLLM takes from the machine.
ARG BASE
FROM ${BASE}
RUN apt-get update -qq && apt-get install -qq --no-install-recommends libnuma1 >/dev/null && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
USER 65532:65532
CMD ["python3"]
