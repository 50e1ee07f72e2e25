-- Sleep. The same column as in ../sqlite, under the same number. A server that does not know it leaves it alone.

-- Since when a lease that may sleep is to wake, until a replica is ready.
ALTER TABLE leases ADD COLUMN waking_since BIGINT;
