-- A client's lease may hold several images.
CREATE TABLE new_leases (
    id TEXT NOT NULL,
    kind TEXT NOT NULL,          -- container or client
    image_id TEXT NOT NULL REFERENCES images (id),
    expires_unix_seconds INTEGER, -- NULL: when it is given back
    uidmap TEXT,                 -- of a container, as in version 4
    gidmap TEXT,
    PRIMARY KEY (kind, id, image_id)
) STRICT;
INSERT INTO new_leases SELECT id, kind, image_id, expires_unix_seconds, uidmap, gidmap FROM leases;
DROP TABLE leases;
ALTER TABLE new_leases RENAME TO leases;
CREATE INDEX leases_image ON leases (image_id);
CREATE UNIQUE INDEX leases_container ON leases (id) WHERE kind = 'container';
