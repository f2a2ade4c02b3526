-- An artifact is kept as an image without layers: its id is its manifest's digest, and `config_json` is its manifest.
ALTER TABLE images ADD COLUMN artifact_type TEXT; -- NULL: a container image
