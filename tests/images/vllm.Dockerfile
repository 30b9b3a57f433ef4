# In the place of vllm/vllm-openai: the same entry point, answers in no time, and the traffic that the tests send.
ARG BASE
FROM ${BASE}
COPY --chmod=755 tests/cluster/workload /workload
USER 0:0
RUN ln -s /workload/vllm.py /usr/local/bin/vllm
USER 65532:65532
ENTRYPOINT ["vllm", "serve"]
CMD []
