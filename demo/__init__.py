"""The demo: a page and an API around the pipeline. It needs nothing of `cxrfpn`."""
