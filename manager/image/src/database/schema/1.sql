CREATE TABLE images (
    id TEXT PRIMARY KEY,
    manifest_digest TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    config_json TEXT NOT NULL
) STRICT;
CREATE TABLE names (
    name TEXT PRIMARY KEY,
    image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    target_digest TEXT NOT NULL, -- what the registry had under the name: a manifest or an index
    platform TEXT NOT NULL       -- what was chosen of an index
) STRICT;
CREATE INDEX names_image ON names (image_id);
CREATE TABLE layers (
    chain_id TEXT PRIMARY KEY,
    number INTEGER NOT NULL UNIQUE -- its folder
) STRICT;
CREATE TABLE image_layers (
    image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,   -- 0 is the base
    chain_id TEXT NOT NULL REFERENCES layers (chain_id),
    PRIMARY KEY (image_id, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_layers_chain ON image_layers (chain_id);
CREATE TABLE blobs (
    digest TEXT PRIMARY KEY
) STRICT;
CREATE TABLE image_blobs (
    image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    digest TEXT NOT NULL REFERENCES blobs (digest),
    PRIMARY KEY (image_id, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_blobs_digest ON image_blobs (digest);
CREATE TABLE leases (
    container_id TEXT PRIMARY KEY,
    image_id TEXT NOT NULL REFERENCES images (id)
) STRICT;
CREATE INDEX leases_image ON leases (image_id);
