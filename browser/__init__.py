"""A page that reads films in the browser. Its scripts lie in src/; Node builds them, and no user needs Node."""
