"""Where things are kept. Only these modules know a path; everybody else goes through `Store`."""
