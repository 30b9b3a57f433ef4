# Redis for the tests, from Debian's package.
ARG BASE
FROM ${BASE}
RUN apt-get update -qq && apt-get install -qq --no-install-recommends redis-server >/dev/null && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
USER 65532:65532
WORKDIR /tmp
CMD ["redis-server", "--save", "", "--protected-mode", "no"]
