//! The log of judgements: the one record that must never be lost.

use super::clips::{Refused, from_word, word};
use super::{Session, StoreError};
use crate::basics::{Choice, Judgement, JudgementId, LogEntry, PairId, standing};
use rusqlite::{OptionalExtension, Row};

impl Session {
    /// Appends an answer to the log. When this returns `Ok`, it is on disk: nothing may be shown as answered before.
    /// `teacher` is `person` or the simulated teacher's name, `at_ms` is Unix time, `thinking_ms` runs from the pair's showing.
    /// Answering a pair twice is allowed (two teachers may differ); the log keeps both.
    ///
    /// # Errors
    /// [`StoreError::NoSuchPair`], [`StoreError::DiskFull`]; the log has not changed then.
    pub fn judge(
        &mut self,
        pair: PairId,
        choice: Choice,
        teacher: &str,
        at_ms: i64,
        thinking_ms: u32,
    ) -> Result<Judgement, StoreError> {
        self.transact(|transaction| {
            if !transaction.prepare_cached("SELECT 1 FROM pairs WHERE id = ?1")?.exists([pair.0])? {
                return Err(Refused::Here(StoreError::NoSuchPair(pair)));
            }
            let id: u64 = transaction
                .prepare_cached("SELECT coalesce(max(judgement) + 1, 0) FROM log")?
                .query_row([], |row| row.get(0))?;
            transaction
                .prepare_cached(
                    "INSERT INTO log (kind, judgement, at_ms, pair, choice, teacher, thinking_ms)
                     VALUES ('judged', ?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute((id, at_ms, pair.0, word(&choice)?, teacher, thinking_ms))?;
            Ok(Judgement { id: JudgementId(id), pair, choice, teacher: teacher.to_owned(), at_ms, thinking_ms })
        })
    }

    /// Appends a retraction of an earlier judgement, on disk when this returns `Ok`; that judgement, as it was, is returned.
    ///
    /// # Errors
    /// [`StoreError::NoSuchJudgement`], [`StoreError::AlreadyRetracted`], [`StoreError::DiskFull`]; the log has not changed then.
    pub fn retract(&mut self, judgement: JudgementId, at_ms: i64) -> Result<Judgement, StoreError> {
        self.transact(|transaction| {
            let judged = transaction
                .prepare_cached("SELECT * FROM log WHERE judgement = ?1 AND kind = 'judged'")?
                .query_row([judgement.0], read_judgement)
                .optional()?
                .ok_or(Refused::Here(StoreError::NoSuchJudgement(judgement)))?;
            if transaction
                .prepare_cached("SELECT 1 FROM log WHERE judgement = ?1 AND kind = 'retracted'")?
                .exists([judgement.0])?
            {
                return Err(Refused::Here(StoreError::AlreadyRetracted(judgement)));
            }
            transaction
                .prepare_cached("INSERT INTO log (kind, judgement, at_ms) VALUES ('retracted', ?1, ?2)")?
                .execute((judgement.0, at_ms))?;
            Ok(judged)
        })
    }

    /// The whole log, oldest first.
    pub fn log(&self) -> Result<Vec<LogEntry>, StoreError> {
        self.sql(|db| {
            let mut statement = db.prepare_cached("SELECT * FROM log ORDER BY entry")?;
            statement
                .query_map([], |row| match row.get::<_, String>("kind")?.as_str() {
                    "judged" => read_judgement(row).map(LogEntry::Judged),
                    // The table's CHECK leaves no third kind.
                    _ => Ok(LogEntry::Retracted {
                        judgement: JudgementId(row.get("judgement")?),
                        at_ms: row.get("at_ms")?,
                    }),
                })?
                .collect()
        })
    }

    /// The judgements that stand after all retractions, oldest first.
    pub fn standing(&self) -> Result<Vec<Judgement>, StoreError> {
        Ok(standing(&self.log()?).into_iter().cloned().collect())
    }
}

fn read_judgement(row: &Row) -> rusqlite::Result<Judgement> {
    Ok(Judgement {
        id: JudgementId(row.get("judgement")?),
        pair: PairId(row.get("pair")?),
        choice: from_word(row, "choice")?,
        teacher: row.get("teacher")?,
        at_ms: row.get("at_ms")?,
        thinking_ms: row.get("thinking_ms")?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::clips::fixtures::*;
    use super::*;
    use rand::Rng;
    use std::collections::BTreeSet;

    /// A few hundred random answers and retractions, held against a plain list of them.
    #[test]
    fn the_log_is_what_was_done_and_unanswered_follows_from_it() {
        let (_folder, mut session) = session();
        const PAIRS: u64 = 12;
        for id in 0..PAIRS {
            put_pair(&mut session, id);
        }
        let mut stream = crate::basics::Seed(3).stream("log");
        let mut expected = Vec::new();
        for at_ms in 0..300_i64 {
            let stands: Vec<JudgementId> = standing(&expected).iter().map(|j| j.id).collect();
            if !stands.is_empty() && stream.next_u64() % 5 < 2 {
                let judgement = stands[stream.next_u64() as usize % stands.len()];
                session.retract(judgement, at_ms).unwrap();
                expected.push(LogEntry::Retracted { judgement, at_ms });
            } else {
                let choice = [Choice::Left, Choice::Right, Choice::Tie, Choice::Skip][stream.next_u64() as usize % 4];
                let pair = PairId(stream.next_u64() % PAIRS);
                let judgement = session.judge(pair, choice, "person", at_ms, 1500).unwrap();
                expected.push(LogEntry::Judged(judgement));
            }
            let answered: BTreeSet<PairId> = standing(&expected).iter().map(|j| j.pair).collect();
            let unanswered: Vec<PairId> = (0..PAIRS).map(PairId).filter(|id| !answered.contains(id)).collect();
            assert_eq!(session.unanswered().unwrap().iter().map(|p| p.id).collect::<Vec<_>>(), unanswered);
        }
        let folder = session.folder().to_owned();
        drop(session);
        let session = Session::open(&folder).unwrap();
        assert_eq!(session.log().unwrap(), expected);
        assert_eq!(session.standing().unwrap().iter().collect::<Vec<_>>(), standing(&expected));
    }

    #[test]
    fn what_cannot_be_judged_or_taken_back_is_refused() {
        let (_folder, mut session) = session();
        put_pair(&mut session, 0);
        assert!(matches!(
            session.judge(PairId(1), Choice::Left, "person", 0, 0),
            Err(StoreError::NoSuchPair(PairId(1)))
        ));
        assert!(matches!(session.retract(JudgementId(0), 0), Err(StoreError::NoSuchJudgement(JudgementId(0)))));
        let judgement = session.judge(PairId(0), Choice::Left, "person", 7, 800).unwrap();
        assert_eq!(session.retract(judgement.id, 8).unwrap(), judgement);
        assert!(matches!(session.retract(judgement.id, 9), Err(StoreError::AlreadyRetracted(_))));
        // A retracted judgement's number is not used again.
        assert!(session.judge(PairId(0), Choice::Left, "person", 10, 800).unwrap().id > judgement.id);
        assert_eq!(session.log().unwrap().len(), 3);
    }

    #[test]
    fn the_database_itself_keeps_the_log_from_shrinking() {
        let (_folder, mut session) = session();
        put_pair(&mut session, 0);
        session.judge(PairId(0), Choice::Tie, "person", 7, 800).unwrap();
        for statement in ["DELETE FROM log", "UPDATE log SET choice = 'left'", "DELETE FROM pairs", "DELETE FROM clips"]
        {
            session.db.execute(statement, []).unwrap_err();
        }
        assert_eq!(session.log().unwrap().len(), 1);
    }

    #[test]
    fn every_commit_is_synced() {
        use rusqlite::types::Value;
        let (_folder, session) = session();
        let pragma = |name: &str| -> Value { session.db.pragma_query_value(None, name, |row| row.get(0)).unwrap() };
        assert_eq!(pragma("synchronous"), Value::Integer(2)); // FULL
        assert_eq!(pragma("journal_mode"), Value::Text("wal".to_owned()));
        assert_eq!(pragma("foreign_keys"), Value::Integer(1));
    }
}
