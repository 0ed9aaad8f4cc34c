"""Simulates the router under load: vendors, Lambda or `serve`, a store, and a destination."""
