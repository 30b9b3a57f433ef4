"""Why a pod is left as it is. Raised while a pod is read, never past `inject`."""


class Refusal(Exception):
    """`reason` is one CamelCase word for events and conditions; `message` says what is in the way, and what to do."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
