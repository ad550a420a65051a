"""The life of one run: build, lock, train, publish."""
