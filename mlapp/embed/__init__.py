"""A model inside another program: what the WSGI application, the Flask blueprint and the Django app share."""
