"""A masker, an attack, a measure and a section, written outside the package; the how-to pages show them."""
