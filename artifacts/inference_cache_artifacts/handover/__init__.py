"""Between pods and the agent of their node, over HTTP: the agent fetches into its store through the pod, and hands on what is there."""
