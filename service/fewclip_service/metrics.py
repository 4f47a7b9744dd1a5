"""Our own Prometheus metrics, beside BentoML's at /metrics. Definitions only.

All workers write into one directory, which BentoML names in their environment, and whichever
answers /metrics adds them up.
"""

from __future__ import annotations

import functools

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Use `metrics()`: a name can be registered only once in a process."""

    def __init__(self) -> None:
        self.requests = Counter(
            name="fewclip_requests_total",
            documentation="Requests by route and outcome (ok, or the type of the error)",
            labelnames=["route", "outcome"],
        )
        self.seconds = Histogram(
            name="fewclip_request_seconds",
            documentation="From the request's first byte to the answer",
            labelnames=["route"],
            buckets=_SECONDS,
        )
        self.batch = Histogram(
            name="fewclip_batch_images",
            documentation="Images that went through the model at once",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
        )
        self.decode = Histogram(
            name="fewclip_decode_seconds",
            documentation="Decoding and preprocessing of one image that could be read",
            buckets=_SECONDS,
        )
        self.inference = Histogram(
            name="fewclip_inference_seconds",
            documentation="The model's time for one batch",
            buckets=_SECONDS,
        )
        self.waiting = Gauge(
            name="fewclip_queue_images",
            documentation="Images accepted and not yet answered",
            multiprocess_mode="livesum",
        )
        self.model = Gauge(
            name="fewclip_model_info",
            documentation="1 for the version that is served, 0 for one that was replaced",
            labelnames=["model", "version", "precision", "provider"],
            multiprocess_mode="mostrecent",
        )
        self.broken = Gauge(
            name="fewclip_model_broken",
            documentation="1 while the newest folder of this name cannot be loaded",
            labelnames=["model"],
            multiprocess_mode="mostrecent",
        )


@functools.cache
def metrics() -> Metrics:
    """This process's metrics."""
    return Metrics()
