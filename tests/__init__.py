"""The tests of Penstock; `make help` tells which suites run when."""
