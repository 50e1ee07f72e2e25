//! Counts the leases that are not closed. Reads only, and the long columns of a lease only once for each of its generations.

use std::collections::HashMap;

use jiff::Timestamp;

use super::rows::{self, Fields};
use super::sql::{Row, sql};
use super::{Store, StoreError};
use crate::domain::census::{Census, Counted, Size};
use crate::domain::lease::{LeaseId, Spec, State};

/// How many leases one statement asks for.
const AT_ONCE: usize = 500;

/// What is known from earlier counts: the size of each lease in one of its generations.
#[derive(Debug, Default)]
pub struct Sizes(HashMap<LeaseId, (i64, Size)>);

impl Store {
    /// Counts the leases that are not closed.
    pub async fn census(&self, sizes: &mut Sizes, now: Timestamp) -> Result<Census, StoreError> {
        let query =
            sql("SELECT id, generation, state, expires_at, desired_replicas, ready_replicas FROM leases \
             WHERE closed_at IS NULL");
        let rows = self.0.read.fetch_all(query).await?;
        let found: Vec<Found> = rows.iter().map(Found::read).collect::<Result<_, _>>()?;
        self.learn(sizes, &found).await?;
        let size = |found: &Found| sizes.0.get(&found.id).map_or_else(Size::default, |(_, size)| *size);
        Ok(Census::count(found.iter().map(|found| Counted { size: size(found), ..found.counted }), now))
    }

    /// Reads what is not known of the sizes of these, and forgets others.
    async fn learn(&self, sizes: &mut Sizes, found: &[Found]) -> Result<(), StoreError> {
        let known = std::mem::take(&mut sizes.0);
        let is_new =
            |it: &&Found| known.get(&it.id).is_none_or(|(generation, _)| *generation != it.generation);
        let new: Vec<_> = found.iter().filter(is_new).collect();
        sizes.0.extend(found.iter().filter_map(|it| Some((it.id, *known.get(&it.id)?))));
        for new in new.chunks(AT_ONCE) {
            let mut query = sql("SELECT id, generation, spec FROM leases WHERE id IN ");
            query.push_list(new.iter().map(|found| found.id));
            for row in self.0.read.fetch_all(query).await? {
                let spec: Spec = Fields::of(&row)?.json("spec")?;
                sizes.0.insert(rows::lease_id(&row, "id")?, (row.get("generation")?, Size::of(&spec)));
            }
        }
        Ok(())
    }
}

/// What is read of each lease every time.
struct Found {
    id: LeaseId,
    generation: i64,
    /// Without its size.
    counted: Counted,
}

impl Found {
    fn read(row: &Row) -> Result<Self, StoreError> {
        let fields = Fields::of(row)?;
        let counted = Counted {
            state: fields.parsed("state", State::from_word)?,
            expires_at: fields.time("expires_at")?,
            wanted: fields.number("desired_replicas")?,
            ready: fields.number("ready_replicas")?,
            size: Size::default(),
        };
        Ok(Self { id: rows::lease_id(row, "id")?, generation: row.get("generation")?, counted })
    }
}
