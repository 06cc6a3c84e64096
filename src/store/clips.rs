//! Clips and pairs: what was shown. A clip's frames are one blob of little-endian f32. A checksum over the whole row
//! reveals damage when the row is read.

use super::{Session, StoreError};
use flipside_core::{Clip, Frames, ItemId, Pair, PairId, Pose, fnv1a, fnv1a_on};
use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, Transaction, TransactionBehavior};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The numbers of a [`Pose`]: position, then rotation.
const POSE: usize = 7;

impl Session {
    /// Stores a clip. Storing the same clip again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Unsound`] if its sizes contradict each other or a number is not finite;
    /// [`StoreError::NumberTaken`] if another clip has its id.
    pub fn put_clip(&mut self, clip: &Clip) -> Result<(), StoreError> {
        let row = ClipRow::new(clip)?;
        self.transact(|transaction| row.insert(transaction))
    }

    /// Stores a pair and its two clips, `[left, right]`, all or nothing. Clips that are already stored stay as they
    /// are.
    ///
    /// # Errors
    /// As [`Session::put_clip`]; [`StoreError::Unsound`] if the clips are not the pair's, or the session holds texts;
    /// [`StoreError::NumberTaken`] if another pair has its id.
    pub fn put_pair(&mut self, pair: &Pair, clips: [&Clip; 2]) -> Result<(), StoreError> {
        if clips.map(|c| c.id) != pair.items {
            return Err(StoreError::Unsound {
                what: format!("pair {}", pair.id.0),
                reason: format!("it names clips {:?} and came with {:?}", pair.items, clips.map(|c| c.id)),
            });
        }
        if self.holds_texts() {
            return Err(StoreError::Unsound {
                what: format!("pair {}", pair.id.0),
                reason: "it compares clips, and the session holds texts".to_owned(),
            });
        }
        let rows = [ClipRow::new(clips[0])?, ClipRow::new(clips[1])?];
        let taken = self.pair(pair.id)?;
        if taken.is_some_and(|there| there != *pair) {
            return Err(StoreError::NumberTaken { what: "pair", id: pair.id.0 });
        }
        self.transact(|transaction| {
            for row in &rows {
                row.insert(transaction)?;
            }
            if taken.is_none() { insert_pair(transaction, pair) } else { Ok(()) }
        })
    }

    /// The clip with this id.
    ///
    /// # Errors
    /// [`StoreError::NoSuchClip`]; [`StoreError::DamagedClip`] if its row does not match its checksum.
    pub fn clip(&self, id: ItemId) -> Result<Clip, StoreError> {
        let row = self
            .sql(|db| {
                db.prepare_cached("SELECT * FROM clips WHERE id = ?1")?.query_row([id.0], ClipRow::read).optional()
            })?
            .ok_or(StoreError::NoSuchClip(id))?;
        row.into_clip().map_err(|reason| StoreError::DamagedClip { folder: self.folder().to_owned(), id, reason })
    }

    /// The ids of all clips, in order.
    pub fn clip_ids(&self) -> Result<Vec<ItemId>, StoreError> {
        self.sql(|db| {
            let mut statement = db.prepare_cached("SELECT id FROM clips ORDER BY id")?;
            statement.query_map([], |row| row.get(0).map(ItemId))?.collect()
        })
    }

    /// The pair with this id, or `None`.
    pub fn pair(&self, id: PairId) -> Result<Option<Pair>, StoreError> {
        self.sql(|db| db.prepare_cached("SELECT * FROM pairs WHERE id = ?1")?.query_row([id.0], read_pair).optional())
    }

    /// All pairs, in order.
    pub fn pairs(&self) -> Result<Vec<Pair>, StoreError> {
        self.sql(|db| db.prepare_cached("SELECT * FROM pairs ORDER BY id")?.query_map([], read_pair)?.collect())
    }

    /// The pairs without a standing judgement, in order: those never answered, and those whose answers were all taken
    /// back.
    pub fn unanswered(&self) -> Result<Vec<Pair>, StoreError> {
        const UNANSWERED: &str = "
            SELECT * FROM pairs WHERE NOT EXISTS (
                SELECT 1 FROM log AS judged WHERE judged.pair = pairs.id AND judged.kind = 'judged' AND NOT EXISTS (
                    SELECT 1 FROM log AS gone WHERE gone.judgement = judged.judgement AND gone.kind = 'retracted'))
            ORDER BY id";
        self.sql(|db| db.prepare_cached(UNANSWERED)?.query_map([], read_pair)?.collect())
    }

    /// The lowest id above those of all stored clips or completions; 1 in a new session.
    pub fn next_item_id(&self) -> Result<ItemId, StoreError> {
        const CLIPS: &str = "SELECT coalesce(max(id), 0) + 1 FROM clips";
        const COMPLETIONS: &str = "SELECT coalesce(max(id), 0) + 1 FROM completions";
        let ask = if self.holds_texts() { COMPLETIONS } else { CLIPS };
        self.sql(|db| db.query_row(ask, [], |row| row.get(0))).map(ItemId)
    }

    /// The lowest id above those of all stored pairs; 1 in a new session.
    pub fn next_pair_id(&self) -> Result<PairId, StoreError> {
        self.sql(|db| db.query_row("SELECT coalesce(max(id), 0) + 1 FROM pairs", [], |row| row.get(0))).map(PairId)
    }

    /// Runs `work` in one transaction: committed and synced if this returns `Ok`, rolled back otherwise.
    pub(super) fn transact<T>(
        &mut self,
        work: impl FnOnce(&Transaction) -> Result<T, Refused>,
    ) -> Result<T, StoreError> {
        self.must_be_writable()?;
        let result = Transaction::new_unchecked(&self.db, TransactionBehavior::Immediate)
            .map_err(Refused::from)
            .and_then(|transaction| {
                let value = work(&transaction)?;
                transaction.commit()?;
                Ok(value)
            });
        result.map_err(|refused| match refused {
            Refused::Sql(error) => super::schema::refusal(&self.db, &self.database(), error),
            Refused::Here(error) => error,
        })
    }
}

/// Why a transaction was rolled back: SQLite refused, or the store did.
pub(super) enum Refused {
    Sql(rusqlite::Error),
    Here(StoreError),
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Refused {
        Refused::Sql(error)
    }
}

/// A clip as a database row.
struct ClipRow {
    id: u64,
    task: String,
    dt: f32,
    recorded_at: u64,
    /// T, B, O, A.
    sizes: [u64; 4],
    checksum: i64,
    frames: Vec<u8>,
}

impl ClipRow {
    fn new(clip: &Clip) -> Result<ClipRow, StoreError> {
        let f = &clip.frames;
        if !f.is_sound() || !clip.dt.is_finite() {
            return Err(StoreError::Unsound {
                what: format!("clip {}", clip.id.0),
                reason: "its sizes contradict each other, or a number in it is not finite".to_owned(),
            });
        }
        let poses: &[f32] = bytemuck::cast_slice(&f.poses);
        let numbers = [poses, &f.obs, &f.actions, &f.task_reward];
        let mut frames = Vec::with_capacity(4 * numbers.iter().map(|n| n.len()).sum::<usize>());
        for number in numbers.into_iter().flatten() {
            frames.extend_from_slice(&number.to_le_bytes());
        }
        let sizes = [f.steps, f.bodies, f.obs_dim, f.act_dim].map(|n| n as u64);
        let mut row = ClipRow {
            id: clip.id.0,
            task: clip.task.clone(),
            dt: clip.dt,
            recorded_at: clip.recorded_at,
            sizes,
            checksum: 0,
            frames,
        };
        row.checksum = row.sum();
        Ok(row)
    }

    /// The correct value of `checksum`: a hash over everything else. The position of each part follows from the parts
    /// before it, so different rows never hash the same bytes.
    fn sum(&self) -> i64 {
        let mut hash = fnv1a(&self.id.to_le_bytes());
        hash = fnv1a_on(hash, &(self.task.len() as u64).to_le_bytes());
        hash = fnv1a_on(hash, self.task.as_bytes());
        hash = fnv1a_on(hash, &self.dt.to_le_bytes());
        hash = fnv1a_on(hash, &self.recorded_at.to_le_bytes());
        for size in self.sizes {
            hash = fnv1a_on(hash, &size.to_le_bytes());
        }
        // SQLite's integers are signed, and only the bits matter.
        fnv1a_on(hash, &self.frames).cast_signed()
    }

    fn insert(&self, transaction: &Transaction) -> Result<(), Refused> {
        let there: Option<i64> = transaction
            .prepare_cached("SELECT checksum FROM clips WHERE id = ?1")?
            .query_row([self.id], |row| row.get(0))
            .optional()?;
        match there {
            Some(checksum) if checksum == self.checksum => Ok(()),
            Some(_) => Err(Refused::Here(StoreError::NumberTaken { what: "clip", id: self.id })),
            None => {
                let [steps, bodies, obs_dim, act_dim] = self.sizes;
                transaction
                    .prepare_cached("INSERT INTO clips VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?
                    .execute((
                        self.id,
                        &self.task,
                        self.dt,
                        self.recorded_at,
                        steps,
                        bodies,
                        obs_dim,
                        act_dim,
                        self.checksum,
                        &self.frames,
                    ))?;
                Ok(())
            }
        }
    }

    fn read(row: &Row) -> rusqlite::Result<ClipRow> {
        Ok(ClipRow {
            id: row.get("id")?,
            task: row.get("task")?,
            dt: row.get("dt")?,
            recorded_at: row.get("recorded_at")?,
            sizes: [row.get("steps")?, row.get("bodies")?, row.get("obs_dim")?, row.get("act_dim")?],
            checksum: row.get("checksum")?,
            frames: row.get("frames")?,
        })
    }

    /// The clip, or what is wrong with the row.
    fn into_clip(self) -> Result<Clip, String> {
        if self.sum() != self.checksum {
            return Err("its bytes do not match its checksum".to_owned());
        }
        // The checksum matched, so these are the sizes that were written. Arithmetic with them cannot overflow.
        let [steps, bodies, obs_dim, act_dim] = self.sizes.map(|n| n as usize);
        let row_len = bodies * POSE + obs_dim + act_dim + 1;
        if self.frames.len() != 4 * steps * row_len {
            return Err(format!("it has {} bytes for {steps} steps of {row_len} numbers", self.frames.len()));
        }
        let (words, _) = self.frames.as_chunks::<4>();
        let mut numbers = words.iter().map(|&bytes| f32::from_le_bytes(bytes));
        let mut take = |n: usize| -> Vec<f32> { numbers.by_ref().take(n).collect() };
        let poses: Vec<Pose> = (take(steps * bodies * POSE).as_chunks::<POSE>().0.iter())
            .map(|&[x, y, z, qw, qx, qy, qz]| Pose { position: [x, y, z], rotation: [qw, qx, qy, qz] })
            .collect();
        let frames = Frames {
            steps,
            bodies,
            obs_dim,
            act_dim,
            poses,
            obs: take(steps * obs_dim),
            actions: take(steps * act_dim),
            task_reward: take(steps),
        };
        Ok(Clip { id: ItemId(self.id), task: self.task, dt: self.dt, recorded_at: self.recorded_at, frames })
    }
}

/// Inserts a pair whose items are stored and whose id is free.
pub(super) fn insert_pair(transaction: &Transaction, pair: &Pair) -> Result<(), Refused> {
    transaction.prepare_cached("INSERT INTO pairs VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute((
        pair.id.0,
        pair.items[0].0,
        pair.items[1].0,
        word(&pair.reason)?,
        pair.asked_at,
        pair_sum(pair)?,
    ))?;
    Ok(())
}

fn read_pair(row: &Row) -> rusqlite::Result<Pair> {
    let pair = Pair {
        id: PairId(row.get("id")?),
        items: [ItemId(row.get("left_item")?), ItemId(row.get("right_item")?)],
        reason: from_word(row, "reason")?,
        asked_at: row.get("asked_at")?,
    };
    match row.get::<_, i64>("checksum")? == pair_sum(&pair)? {
        true => Ok(pair),
        false => Err(damaged(format!("pair {} does not match its checksum", pair.id.0))),
    }
}

fn pair_sum(pair: &Pair) -> rusqlite::Result<i64> {
    let [left, right] = pair.items;
    let text = format!("{} {} {} {} {}", pair.id.0, left.0, right.0, word(&pair.reason)?, pair.asked_at);
    Ok(fnv1a(text.as_bytes()).cast_signed())
}

/// The error for a row that cannot be what was written. It becomes [`StoreError::Damaged`].
pub(super) fn damaged(reason: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Null, reason.into())
}

/// The name of a plain enum's value in the database, the same as in its JSON.
pub(super) fn word<T: Serialize>(value: &T) -> rusqlite::Result<String> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        other => Err(rusqlite::Error::ToSqlConversionFailure(format!("not a plain name: {other:?}").into())),
    }
}

/// The plain enum's value that a column names.
pub(super) fn from_word<T: DeserializeOwned>(row: &Row, column: &str) -> rusqlite::Result<T> {
    let word: String = row.get(column)?;
    serde_json::from_value(serde_json::Value::String(word)).map_err(|e| damaged(format!("{column}: {e}")))
}

/// Clips, pairs and a session for the store's tests.
#[cfg(test)]
pub(super) mod fixtures {
    use super::*;
    use crate::settings::RunSettings;
    use flipside_core::PairReason;

    /// A clip of small random sizes with awkward numbers in it. The same id gives the same clip.
    pub fn clip(id: u64) -> Clip {
        use rand::Rng;
        let mut stream = flipside_core::Seed(id).stream("clip");
        let [steps, bodies, obs_dim, act_dim] = std::array::from_fn(|_| 1 + (stream.next_u64() % 7) as usize);
        let mut numbers = |n: usize| -> Vec<f32> {
            // Random bits, among them subnormals, huge numbers and negative zeros. Only infinities and NaN are
            // replaced.
            (0..n).map(|_| f32::from_bits(stream.next_u32())).map(|x| if x.is_finite() { x } else { -0.0 }).collect()
        };
        let poses = bytemuck::cast_slice(&numbers(steps * bodies * POSE)).to_vec();
        let (obs, actions, task_reward) = (numbers(steps * obs_dim), numbers(steps * act_dim), numbers(steps));
        let frames = Frames { steps, bodies, obs_dim, act_dim, poses, obs, actions, task_reward };
        Clip { id: ItemId(id), task: "hopper".to_owned(), dt: 0.008, recorded_at: 1000 * id, frames }
    }

    /// Pair `id` of clips 2·id and 2·id + 1.
    pub fn pair(id: u64) -> Pair {
        let reason = if id.is_multiple_of(2) { PairReason::Random } else { PairReason::Disagreement };
        Pair { id: PairId(id), items: [ItemId(2 * id), ItemId(2 * id + 1)], reason, asked_at: 2048 * id }
    }

    /// A new session in a folder that exists as long as the first value.
    pub fn session() -> (tempfile::TempDir, Session) {
        let folder = tempfile::tempdir().unwrap();
        let session = Session::create(&folder.path().join("s"), &RunSettings::default()).unwrap();
        (folder, session)
    }

    /// Stores pair `id` with its clips.
    pub fn put_pair(session: &mut Session, id: u64) {
        session.put_pair(&pair(id), [&clip(2 * id), &clip(2 * id + 1)]).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::fixtures::*;
    use super::*;

    #[test]
    fn clips_and_pairs_come_back_bit_for_bit() {
        let (_folder, mut session) = session();
        for id in 0..20 {
            put_pair(&mut session, id);
        }
        let folder = session.folder().to_owned();
        drop(session);
        let session = Session::open(&folder).unwrap();
        for id in 0..40 {
            let (there, expected) = (session.clip(ItemId(id)).unwrap(), clip(id));
            assert_eq!(there, expected);
            // == treats 0.0 and -0.0 as equal, but the bits must be equal too.
            let bits = |c: &Clip| c.frames.obs.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&there), bits(&expected));
        }
        assert_eq!(session.pairs().unwrap(), (0..20).map(pair).collect::<Vec<_>>());
        assert_eq!((session.next_item_id().unwrap(), session.next_pair_id().unwrap()), (ItemId(40), PairId(20)));
        assert!(matches!(session.clip(ItemId(99)), Err(StoreError::NoSuchClip(ItemId(99)))));
    }

    #[test]
    fn a_pair_is_stored_whole_or_not_at_all() {
        let (_folder, mut session) = session();
        put_pair(&mut session, 0);
        put_pair(&mut session, 0); // the same again changes nothing
        // Another clip has the right clip's id, so neither the left clip nor the pair may be stored afterwards.
        let mut impostor = clip(1);
        impostor.dt = 0.5;
        let crooked = Pair { items: [ItemId(7), ItemId(1)], ..pair(3) };
        let error = session.put_pair(&crooked, [&clip(7), &impostor]).unwrap_err();
        assert!(matches!(error, StoreError::NumberTaken { what: "clip", id: 1 }), "{error}");
        assert_eq!(session.clip_ids().unwrap(), [ItemId(0), ItemId(1)]);
        assert_eq!(session.pairs().unwrap(), [pair(0)]);

        let error = session.put_pair(&pair(3), [&clip(7), &clip(6)]).unwrap_err();
        assert!(matches!(error, StoreError::Unsound { .. }), "{error}");
        let error = session.put_pair(&Pair { asked_at: 5, ..pair(0) }, [&clip(0), &clip(1)]).unwrap_err();
        assert!(matches!(error, StoreError::NumberTaken { what: "pair", id: 0 }), "{error}");
        let mut broken = clip(9);
        broken.frames.obs[0] = f32::NAN;
        assert!(matches!(session.put_clip(&broken), Err(StoreError::Unsound { .. })));
    }

    #[test]
    fn any_changed_bit_of_a_clips_row_is_noticed() {
        let (_folder, mut session) = session();
        session.put_clip(&clip(3)).unwrap();
        let whole: Vec<u8> = session.db.query_row("SELECT frames FROM clips", [], |row| row.get(0)).unwrap();
        let expect_damage = |session: &Session| {
            let error = session.clip(ItemId(3)).unwrap_err();
            assert!(matches!(error, StoreError::DamagedClip { id: ItemId(3), .. }), "{error}");
        };
        for bit in (0..8 * whole.len()).step_by(37) {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            session.db.execute("UPDATE clips SET frames = ?1", [&bytes]).unwrap();
            expect_damage(&session);
        }
        session.db.execute("UPDATE clips SET frames = ?1", [&whole[..whole.len() - 4]]).unwrap();
        expect_damage(&session);
        session.db.execute("UPDATE clips SET frames = ?1", [&whole]).unwrap();
        assert_eq!(session.clip(ItemId(3)).unwrap(), clip(3));
        for column in ["steps", "bodies", "obs_dim", "act_dim", "recorded_at", "checksum"] {
            session.db.execute(&format!("UPDATE clips SET {column} = {column} + 1"), []).unwrap();
            expect_damage(&session);
            session.db.execute(&format!("UPDATE clips SET {column} = {column} - 1"), []).unwrap();
        }
        session.clip(ItemId(3)).unwrap();
    }
}
