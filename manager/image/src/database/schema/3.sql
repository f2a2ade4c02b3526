-- Where images came from, and the signatures that were found there: see trust/origins.rs.
CREATE TABLE origins (
    image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    name TEXT NOT NULL,         -- what it was pulled as
    digests TEXT NOT NULL,      -- JSON: what the name pointed to, then the manifest of the image
    signatures TEXT NOT NULL,   -- JSON: manifests of signatures, which are content of the image
    verified TEXT NOT NULL,     -- JSON: the rule and the signers by which it was accepted
    PRIMARY KEY (image_id, name)
) STRICT, WITHOUT ROWID;
