-- Content, what it is, and what it points to.
CREATE TABLE contents (
    digest TEXT PRIMARY KEY,
    media_type TEXT NOT NULL,    -- empty: from version 1, which did not know it
    size_bytes INTEGER NOT NULL
) STRICT;
CREATE TABLE links (
    parent TEXT NOT NULL REFERENCES contents (digest) ON DELETE CASCADE,
    position INTEGER NOT NULL,   -- in the parent
    kind TEXT NOT NULL,          -- manifest, config, layer, foreign (layer) or subject
    child TEXT NOT NULL,         -- need not be here: the manifest of another platform, a subject
    PRIMARY KEY (parent, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX links_child ON links (child);
INSERT INTO contents SELECT digest, '', 0 FROM blobs;
INSERT INTO links
    SELECT manifest_digest, row_number() OVER (PARTITION BY manifest_digest ORDER BY digest), 'layer', digest
    FROM (SELECT DISTINCT manifest_digest, digest FROM images JOIN image_blobs ON image_id = id)
    WHERE digest != manifest_digest AND manifest_digest IN (SELECT digest FROM contents);
-- Content that stays with an image though its manifest does not point there: signatures.
CREATE TABLE image_contents (
    image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    digest TEXT NOT NULL REFERENCES contents (digest) ON DELETE CASCADE,
    PRIMARY KEY (image_id, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_contents_digest ON image_contents (digest);
DROP TABLE image_blobs;
DROP TABLE blobs;

-- Repositories of registries that have had a manifest or index: where it was pulled from or pushed to.
CREATE TABLE repositories (
    repository TEXT NOT NULL,    -- with its registry: docker.io/library/debian
    digest TEXT NOT NULL REFERENCES contents (digest) ON DELETE CASCADE,
    PRIMARY KEY (repository, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX repositories_digest ON repositories (digest);

-- A name points to any content; to an image only if one was unpacked.
CREATE TABLE new_names (
    name TEXT PRIMARY KEY,
    target_digest TEXT NOT NULL, -- a manifest, index or artifact
    image_id TEXT REFERENCES images (id) ON DELETE SET NULL, -- what the name stands for where no platform is told
    platform TEXT NOT NULL       -- what was chosen of an index
) STRICT;
INSERT INTO new_names SELECT name, target_digest, image_id, platform FROM names;

-- What an image was last pulled by: it stays with the image when the name moves on.
ALTER TABLE images ADD COLUMN target_digest TEXT NOT NULL DEFAULT '';
UPDATE images SET target_digest =
    coalesce((SELECT target_digest FROM names WHERE image_id = id ORDER BY name LIMIT 1), manifest_digest);

DROP TABLE names;
ALTER TABLE new_names RENAME TO names;
CREATE INDEX names_image ON names (image_id);
CREATE INDEX names_target ON names (target_digest);

-- NULL: not known, as the layer is from version 1.
ALTER TABLE layers ADD COLUMN unpacked_bytes INTEGER;

-- Not only containers need images.
CREATE TABLE new_leases (
    id TEXT NOT NULL,
    kind TEXT NOT NULL,          -- container or client
    image_id TEXT NOT NULL REFERENCES images (id),
    expires_unix_seconds INTEGER, -- NULL: when it is given back
    PRIMARY KEY (kind, id)
) STRICT;
INSERT INTO new_leases SELECT container_id, 'container', image_id, NULL FROM leases;
DROP TABLE leases;
ALTER TABLE new_leases RENAME TO leases;
CREATE INDEX leases_image ON leases (image_id);
