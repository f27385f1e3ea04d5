"""HTTP: requests, responses, errors, authentication, CORS, the pages."""
