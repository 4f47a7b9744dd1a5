"""The README of a Bento, from the cards of the models inside. Text only, nothing is built here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fewclip.artifact import read_card
from fewclip.contract import Card
from fewclip_service.settings import MiB, Settings

_WORKER_MEMORY = 300 * MiB  # of a worker without a model: Python, BentoML, ONNX Runtime
_CLASSES = 50  # named in the README


def bento_readme(name: str, folders: Sequence[Path]) -> str:
    """Markdown: what is inside, how to call it, how to run it."""
    cards = [(folder.name, read_card(folder, verify=False)) for folder in folders]
    memory = _memory(folders)
    several = len(cards) > 1
    query = f"?model={cards[0][0]}" if several else ""
    settings = Settings()
    return f"""# {name}

{_models(cards)}
## Call it

```
curl -F image=@photo.jpg 'http://127.0.0.1:3000/v1/predict{query}'
curl -H 'Content-Type: image/jpeg' --data-binary @photo.jpg 'http://127.0.0.1:3000/v1/predict{query}'
curl -F images=@a.jpg -F images=@b.jpg 'http://127.0.0.1:3000/v1/predict_batch{query}'
curl -F image=@photo.jpg -F 'classes=["cat", "dog"]' 'http://127.0.0.1:3000/v1/predict_classes{query}'
curl http://127.0.0.1:3000/v1/models
```

`/v1/docs` shows every route with a form to try it; `/v1/openapi.json` is for client generators.
Errors are JSON: `{{"error": {{"type", "message"}}}}`.

## Run it

```
bentoml serve {name}
bentoml containerize {name}:VERSION -t {name}:1
docker run -p 3000:3000 -e FEWCLIP_TOKEN=a-long-random-text {name}:1
```

**Token.** Without `FEWCLIP_TOKEN` anybody who reaches the port may call it. With it, send
`Authorization: Bearer ...`. Put TLS in front.

**Limits**, each an environment variable:

| | | |
|---|---|---|
| `FEWCLIP_MAX_BYTES` | {settings.max_bytes:,} | bytes of one image |
| `FEWCLIP_MAX_PIXELS` | {settings.max_pixels:,} | pixels of one image |
| `FEWCLIP_MAX_IMAGES` | {settings.max_images} | images of one request |
| `FEWCLIP_QUEUE` | {settings.queue} | images waiting per worker; then 503 with Retry-After |
| `FEWCLIP_TIMEOUT` | {settings.timeout:g} | seconds; then 504 |

**Health.** `/livez`: restart when it fails. `/readyz`: send requests only when it is 200.
`/metrics`: Prometheus. On SIGTERM it becomes unready, answers what it has accepted, and ends.

**Resources.** About {memory} MiB of memory per worker (`FEWCLIP_WORKERS`, 1 by default), estimated
from the size of the files; more cores make it faster. No GPU is needed; for one, replace
`onnxruntime` in the recipe by `onnxruntime-gpu[cuda,cudnn]`.

### compose.yaml

```yaml
services:
  {name}:
    image: {name}:1
    ports: ["3000:3000"]
    environment:
      FEWCLIP_TOKEN: ${{FEWCLIP_TOKEN:?set a token}}
      FEWCLIP_WORKERS: "1"
    mem_limit: {2 * memory}m
    read_only: true
    tmpfs: [/tmp, /home/bentoml/bentoml]
    stop_grace_period: 45s
    healthcheck:
      test: [CMD, python, -c, "import urllib.request as u; u.urlopen('http://127.0.0.1:3000/readyz')"]
      interval: 10s
      start_period: 30s
    restart: unless-stopped
```

### Kubernetes

```yaml
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata:
      labels: {{app: {name}}}
      annotations: {{prometheus.io/scrape: "true", prometheus.io/port: "3000"}}
    spec:
      terminationGracePeriodSeconds: 45
      containers:
        - name: {name}
          image: {name}:1
          ports: [{{containerPort: 3000}}]
          env:
            - name: FEWCLIP_TOKEN
              valueFrom: {{secretKeyRef: {{name: {name}, key: token}}}}
          readinessProbe: {{httpGet: {{path: /readyz, port: 3000}}, periodSeconds: 5}}
          livenessProbe: {{httpGet: {{path: /livez, port: 3000}}, initialDelaySeconds: 30}}
          resources:
            requests: {{cpu: "1", memory: {memory}Mi}}
            limits: {{memory: {2 * memory}Mi}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{port: 80, targetPort: 3000}}]
```

Create the secret first: `kubectl create secret generic {name} --from-literal=token=...`
"""


def _models(cards: Sequence[tuple[str, Card]]) -> str:
    parts = []
    for name, card in cards:
        named = ", ".join(f"`{label}`" for label in card.classes[:_CLASSES])
        more = len(card.classes) - _CLASSES
        after = card.metrics.get("after")
        measured = (
            f"{after['accuracy']:.1%} of {after['n']} images kept out of training were right."
            if after
            else "Its accuracy was not measured."
        )
        parts.append(
            f"**{name}**: {card.method} on {card.backbone.get('name')}, {card.precision}, made "
            f"{card.created} by fewclip {card.fewclip_version}. {measured}\n\n"
            f"{len(card.classes)} classes: {named}{f' and {more} more' if more > 0 else ''}\n"
        )
    return "\n".join(parts)


def _memory(folders: Sequence[Path]) -> int:
    """MiB a worker needs, in steps of 64; a model is in memory twice while it is replaced."""
    size = sum(file.stat().st_size for folder in folders for file in folder.rglob("*"))
    return -(-(_WORKER_MEMORY + 2 * size) // (64 * MiB)) * 64
