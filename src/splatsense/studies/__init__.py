"""What studies share, runs trained and measured by one command: records of runs, tables in a page, a picture."""
