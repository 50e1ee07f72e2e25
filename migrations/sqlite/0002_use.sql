-- Renewal by use, and notices of the end. The same columns as in ../postgres, under the same number. A server that does not
-- know them leaves them alone.

-- How long the lease lives on after it was used, in microseconds, where it asked for renewal by use.
ALTER TABLE leases ADD COLUMN idle_window BIGINT;
-- When it was in use, as far as that moved its end.
ALTER TABLE leases ADD COLUMN last_used_at BIGINT;
-- When its owner last asked for its lifetime; NULL: at its creation.
ALTER TABLE leases ADD COLUMN renewed_at BIGINT;
-- Notices of its end that were due until then are dealt with; NULL: until its creation.
ALTER TABLE leases ADD COLUMN noticed_until BIGINT;

CREATE INDEX leases_renewed_by_use ON leases (id) WHERE idle_window IS NOT NULL AND ended_at IS NULL;
