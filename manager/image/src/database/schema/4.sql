-- The user namespace of a container whose files have mapped owners: CONTAINER:HOST:SIZE, comma-separated.
ALTER TABLE leases ADD COLUMN uidmap TEXT;
ALTER TABLE leases ADD COLUMN gidmap TEXT;
