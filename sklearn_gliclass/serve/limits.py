"""Limits of the server."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """Limits of the server, each with its default; see :func:`sklearn_gliclass.serve.create_app`."""

    max_batch: int = 64
    max_wait: float = 0.002
    max_queue: int = 2048
    request_timeout: float = 30.0
    max_body_bytes: int = 2**20
    body_timeout: float = 10.0
    max_texts: int = 256
    max_characters: int = 20_000
    max_labels: int = 100
    max_label_characters: int = 200
    max_label_sets: int = 32

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            kinds, kind = ((int, float), "a number") if field.type is float else ((int,), "an integer")
            least = 0 if field.name == "max_wait" else 1 if field.type is int else 1e-3
            if isinstance(value, bool) or not isinstance(value, kinds) or not value >= least:
                raise ValueError(f"{field.name} must be {kind} of at least {least}, got {value!r}.")
        if self.max_queue < self.max_texts + self.max_labels:
            raise ValueError(
                f"max_queue={self.max_queue} has no room for one request of max_texts={self.max_texts} texts and "
                f"max_labels={self.max_labels} labels; set max_queue to {self.max_texts + self.max_labels} or more."
            )
