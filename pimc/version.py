"""The version of pimc, where everything can import it from."""

VERSION = "0.1.0"
