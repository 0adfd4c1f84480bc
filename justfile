# What a machine runs, and what people run often. `just --list` shows it.

# Everything that must hold before a change goes in.
ci:
    .ci/run

# The tests alone.
test:
    tests/run

# A set of good and bad upstreams, and what passes and what is refused.
demo:
    cargo run -- demo

# The sidecar alongside an unmodified glance-replicator, in containers.
docker:
    docker/test

# The documentation as a book, in target/book.
book:
    .ci/book

# Format the code.
fmt:
    cargo fmt --all
