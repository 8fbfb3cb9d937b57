"""The server of kernels: a folder that is run, see __main__."""
