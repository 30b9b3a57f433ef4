"""How a pod reaches the agent of its node. Made by `command`; loads nothing, since a warm start has it too."""

from dataclasses import dataclass
from pathlib import Path

from inference_cache_artifacts.errors import BadRequest


@dataclass(frozen=True, slots=True)
class Contact:
    url: str
    """`http://HOST:PORT`, without a slash at the end."""
    token_file: Path

    def token(self) -> str:
        """Read each time: kubelet puts another one there long before it ends. Raises BadRequest."""
        try:
            token = self.token_file.read_text("ascii").strip()
        except OSError as error:
            raise BadRequest(f"--agent-token {self.token_file} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise BadRequest(f"--agent-token {self.token_file} is no token") from None
        if not token or not token.isprintable():
            raise BadRequest(f"--agent-token {self.token_file} is no token")
        return token
