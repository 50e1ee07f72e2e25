//! Sessions of PostgreSQL that are more than a statement: what they ask of PostgreSQL beyond its defaults.

use std::time::Duration;

use sqlx::PgConnection;

/// First and longest pause before a session that ended is begun anew.
pub(super) const BACK_OFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// So that PostgreSQL notices within half a minute that a machine has gone; sockets of one machine ignore these.
const KEEPALIVES: [(&str, &str); 4] = [
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "25000"),
];

/// Gives parameters of a session their values, those that this PostgreSQL knows and does not refuse.
pub(super) async fn set(connection: &mut PgConnection, settings: &[(&str, &str)]) -> Result<(), sqlx::Error> {
    for (name, value) in settings.iter().chain(&KEEPALIVES) {
        let statement = sqlx::query("SELECT set_config(name, $2, false) FROM pg_settings WHERE name = $1");
        match statement.bind(*name).bind(*value).execute(&mut *connection).await {
            Ok(_) => {}
            // What a setting is good for is missed less than all that the session does.
            Err(sqlx::Error::Database(error)) => {
                tracing::warn!(setting = name, value, %error, "PostgreSQL refuses a setting of a session");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
