"""Raw text, images and audio become feature matrices with presence and provenance."""
