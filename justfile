# What a machine runs, and what people run often. `just --list` shows it.

# Everything that must hold before a change goes in.
ci:
    .ci/run

# The tests alone.
test:
    tests/run

# The command of two minutes: a gallery of good and bad upstreams, and what became of each.
demo:
    cargo run --release -- demo

# The sidecar beside an unmodified glance-replicator, in containers.
docker:
    docker/test

# Bring the code into shape.
fmt:
    cargo fmt --all
