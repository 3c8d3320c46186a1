"""The measurements that `/metrics` shows, in the format of Prometheus."""

import prometheus_client
from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)


class Metrics:
    """Counters of a server.

    Attributes:
        requests: Requests by `path` and `status`.
        seconds: Their duration by `path`.
        first_token_seconds: Seconds until the first tokens of a stream.
        prompt_tokens: Tokens of the prompts that were accepted.
        completion_tokens: Tokens sampled.
        running: Completions in a slot.
        waiting: Completions that wait for one.
        registry: All of them.
    """

    def __init__(self):
        self.registry = prometheus_client.CollectorRegistry()

        def make(kind, name, text, labels=(), **kwargs):
            kwargs["registry"] = self.registry
            return kind(f"star_keras_{name}", text, labels, **kwargs)

        self.requests = make(Counter, "requests", "Requests.", ("path", "status"))
        self.seconds = make(
            Histogram,
            "request_seconds",
            "Duration of requests.",
            ("path",),
            buckets=_SECONDS,
        )
        self.first_token_seconds = make(
            Histogram,
            "first_token_seconds",
            "Time until the first tokens of a stream.",
            buckets=_SECONDS,
        )
        self.prompt_tokens = make(Counter, "prompt_tokens", "Tokens of prompts.")
        self.completion_tokens = make(Counter, "completion_tokens", "Tokens sampled.")
        self.running = make(Gauge, "running_completions", "Completions in a slot.")
        self.waiting = make(
            Gauge, "waiting_completions", "Completions that wait for a slot."
        )

    def text(self) -> bytes:
        """The page."""
        return prometheus_client.generate_latest(self.registry)
