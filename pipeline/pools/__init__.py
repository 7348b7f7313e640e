"""Ray and what runs on it: the process itself, the actors beside the driver, the pools.

Holds Ray's own process (`ray_process`), what processes find in their environment (`environment`), the actors that the
driver keeps on its node (`driver_actors`, with `liveness`; the actors themselves are `buffer` and `loaders`), Serve
deployments (`serving`), which pools there are (`catalogue`), `cluster`, which has all of them, `scaling`, when a pool
grows, `gpus`, what each stage holds of GPUs, `room`, what nodes there are and could be, and, on a cluster that was
there: `lease`, by which nothing outlives the driver, and `nodes`, what each node sees of its files. May import actors,
trainers, domains and what lies below; must never know a stage.
"""
