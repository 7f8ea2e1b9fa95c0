"""Whether the parts of a production work, in answers for a load balancer, for Prometheus and for a container.

Inside: one question at a time (`questions`), a verdict of them (`verdict`), the figures (`figures`, `metrics`), the HTTP service
(`service`). Not here: telling people (`operations.alerts`), reaching every connection with details (`cli.doctor`).
"""
