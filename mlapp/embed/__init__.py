"""A model inside another program: shared by the WSGI application, the Flask blueprint and the Django app."""
