"""A model inside another program: shared code of the WSGI application, the Flask blueprint and the Django app."""
