"""Blurred photographs, made sharp by an exact inverse."""
