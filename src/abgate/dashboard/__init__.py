"""The pages: what people do in a browser, by the same operations that the Management API runs."""
