"""The demo: what stands around the pipeline when people use it in a browser. Needs nothing of `cxrfpn`."""
