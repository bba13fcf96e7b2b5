"""Template protections, one file a scheme: an embedding goes in, what a server may store comes out."""
