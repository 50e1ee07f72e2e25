//! Remembers leases: all SQL, one text for SQLite and PostgreSQL.
