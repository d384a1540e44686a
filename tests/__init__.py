"""The test suite; the README says how to run it."""
