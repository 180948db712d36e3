"""What the Python tests are made of: a private Postgres, jobqd's processes, and waiting for conditions."""
