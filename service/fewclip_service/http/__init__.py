"""HTTP: routes, bodies, limits before routing, errors, OpenAPI. No prediction happens here."""
