"""Digits translated into German numerals."""
