"""What stands at admission: the server the API server calls, the decision about one pod, and the webhook configuration."""
