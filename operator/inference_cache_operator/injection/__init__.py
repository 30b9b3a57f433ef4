"""Injection: a pod and its resource in, the pod with the sidecar in front of vLLM out, or why not. Pure: dicts in, dicts out.

`inject` decides and is what the webhook calls; the other modules each know one thing: how a command line is read (`shell`, `words`,
`command`, `arguments`), which container runs vLLM (`finding`), which ports are meant and free (`ports`), what is added (`container`,
`edits`), how it is taken out again (`undo`), and what names the outcome (`revision` with `mounts`, `naming`).
"""
