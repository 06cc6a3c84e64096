//! The log of judgements: the one record that must never be lost.

use super::clips::{Refused, damaged, from_word, word};
use super::schema::log_head;
use super::{Session, StoreError};
use flipside_core::{Choice, Judgement, JudgementId, LogEntry, PairId, fnv1a, fnv1a_on, standing};
use rusqlite::{OptionalExtension, Row, Transaction};

impl Session {
    /// Appends an answer to the log. It is on disk when this returns `Ok`. Nothing may be shown as answered before
    /// that. `teacher` is `person` or the simulated teacher's name, `at_ms` is Unix time, and `thinking_ms` counts from
    /// showing the pair. A pair may be answered twice, because two teachers may differ. The log keeps both answers.
    ///
    /// # Errors
    /// [`StoreError::NoSuchPair`], [`StoreError::DiskFull`]; the log is then unchanged.
    pub fn record_judgement(
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
                .prepare_cached("SELECT coalesce(max(judgement), 0) + 1 FROM log")?
                .query_row([], |row| row.get(0))?;
            let judgement =
                Judgement { id: JudgementId(id), pair, choice, teacher: teacher.to_owned(), at_ms, thinking_ms };
            append(transaction, &LogEntry::Judged(judgement.clone()))?;
            Ok(judgement)
        })
    }

    /// Appends a retraction of an earlier judgement. It is on disk when this returns `Ok`. Returns the retracted
    /// judgement.
    ///
    /// # Errors
    /// [`StoreError::NoSuchJudgement`], [`StoreError::AlreadyRetracted`], [`StoreError::DiskFull`]; the log is then
    /// unchanged.
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
            append(transaction, &LogEntry::Retracted { judgement, at_ms })?;
            Ok(judged)
        })
    }

    /// The whole log, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if an entry was changed or is missing, even one of the newest.
    pub fn log(&self) -> Result<Vec<LogEntry>, StoreError> {
        self.sql(|db| {
            let mut statement = db.prepare_cached("SELECT * FROM log ORDER BY entry")?;
            let mut rows = statement.query([])?;
            let (mut log, mut chain) = (Vec::new(), START);
            while let Some(row) = rows.next()? {
                let entry = match row.get::<_, String>("kind")?.as_str() {
                    "judged" => LogEntry::Judged(read_judgement(row)?),
                    // The table's CHECK allows no third kind.
                    _ => {
                        LogEntry::Retracted { judgement: JudgementId(row.get("judgement")?), at_ms: row.get("at_ms")? }
                    }
                };
                chain = link(chain, &entry)?;
                if chain != row.get::<_, i64>("chain")? {
                    return Err(damaged(format!(
                        "entry {} of the log does not follow from the one before",
                        log.len() + 1
                    )));
                }
                log.push(entry);
            }
            match log_head(db)? {
                Some((length, head)) if (length, head) != (log.len() as u64, chain) => {
                    Err(damaged(format!("the log ends at entry {}, but {length} were written", log.len())))
                }
                _ => Ok(log),
            }
        })
    }

    /// The judgements that were not retracted, oldest first.
    pub fn standing(&self) -> Result<Vec<Judgement>, StoreError> {
        Ok(standing(&self.log()?).into_iter().cloned().collect())
    }
}

/// The chain's value before the first entry.
const START: i64 = 0;

/// The chain's value after `entry`: a hash over the value before it and all fields of the entry.
fn link(before: i64, entry: &LogEntry) -> rusqlite::Result<i64> {
    let text = match entry {
        LogEntry::Judged(j) => {
            let choice = word(&j.choice)?;
            format!("judged {} {} {choice} {} {} {}", j.id.0, j.pair.0, j.at_ms, j.thinking_ms, j.teacher)
        }
        LogEntry::Retracted { judgement, at_ms } => format!("retracted {} {at_ms}", judgement.0),
    };
    Ok(fnv1a_on(fnv1a(&before.to_le_bytes()), text.as_bytes()).cast_signed())
}

/// Appends an entry to the log.
fn append(transaction: &Transaction, entry: &LogEntry) -> rusqlite::Result<()> {
    let before = transaction
        .prepare_cached("SELECT chain FROM log ORDER BY entry DESC LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?
        .unwrap_or(START);
    let chain = link(before, entry)?;
    match entry {
        LogEntry::Judged(j) => transaction
            .prepare_cached(
                "INSERT INTO log (kind, judgement, at_ms, pair, choice, teacher, thinking_ms, chain)
                 VALUES ('judged', ?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute((j.id.0, j.at_ms, j.pair.0, word(&j.choice)?, &j.teacher, j.thinking_ms, chain)),
        LogEntry::Retracted { judgement, at_ms } => transaction
            .prepare_cached("INSERT INTO log (kind, judgement, at_ms, chain) VALUES ('retracted', ?1, ?2, ?3)")?
            .execute((judgement.0, at_ms, chain)),
    }
    .map(drop)
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

    /// A few hundred random answers and retractions, compared with a plain list of them.
    #[test]
    fn the_log_is_what_was_done_and_unanswered_follows_from_it() {
        let (_folder, mut session) = session();
        const PAIRS: u64 = 12;
        for id in 0..PAIRS {
            put_pair(&mut session, id);
        }
        let mut stream = flipside_core::Seed(3).stream("log");
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
                let judgement = session.record_judgement(pair, choice, "person", at_ms, 1500).unwrap();
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
            session.record_judgement(PairId(1), Choice::Left, "person", 0, 0),
            Err(StoreError::NoSuchPair(PairId(1)))
        ));
        assert!(matches!(session.retract(JudgementId(0), 0), Err(StoreError::NoSuchJudgement(JudgementId(0)))));
        let judgement = session.record_judgement(PairId(0), Choice::Left, "person", 7, 800).unwrap();
        assert_eq!(session.retract(judgement.id, 8).unwrap(), judgement);
        assert!(matches!(session.retract(judgement.id, 9), Err(StoreError::AlreadyRetracted(_))));
        // The id of a retracted judgement is not used again.
        assert!(session.record_judgement(PairId(0), Choice::Left, "person", 10, 800).unwrap().id > judgement.id);
        assert_eq!(session.log().unwrap().len(), 3);
    }

    #[test]
    fn the_database_itself_keeps_the_log_from_shrinking() {
        let (_folder, mut session) = session();
        put_pair(&mut session, 0);
        session.record_judgement(PairId(0), Choice::Tie, "person", 7, 800).unwrap();
        for statement in ["DELETE FROM log", "UPDATE log SET choice = 'left'", "DELETE FROM pairs", "DELETE FROM clips"]
        {
            session.db.execute(statement, []).unwrap_err();
        }
        assert_eq!(session.log().unwrap().len(), 1);
    }

    #[test]
    fn a_changed_or_missing_entry_shows() {
        let (_folder, mut session) = session();
        put_pair(&mut session, 0);
        for at_ms in 0..4 {
            session.record_judgement(PairId(0), Choice::Left, "person", at_ms, 800).unwrap();
        }
        // Without the triggers, as when the disk is at fault.
        session.db.execute_batch("DROP TRIGGER log_is_never_changed; DROP TRIGGER log_is_never_cut").unwrap();
        for damage in [
            "UPDATE log SET choice = 'right' WHERE entry = 2",
            "UPDATE log SET at_ms = 9 WHERE entry = 4",
            "DELETE FROM log WHERE entry = 1",
            "DELETE FROM log WHERE entry = 4",
            "UPDATE meta SET value = '5 0' WHERE name = 'log_head'",
        ] {
            session.db.execute_batch("SAVEPOINT whole").unwrap();
            assert_eq!(session.db.execute(damage, []).unwrap(), 1);
            let error = session.log().unwrap_err();
            assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
            session.db.execute_batch("ROLLBACK TO whole; RELEASE whole").unwrap();
            assert_eq!(session.log().unwrap().len(), 4);
        }
    }

    /// A session of version 0.1.0 has no head. It can be opened, and from then on the loss of its newest entry is
    /// noticed.
    #[test]
    fn a_session_without_a_head_gets_one() {
        let (_folder, mut session) = session();
        put_pair(&mut session, 0);
        session.record_judgement(PairId(0), Choice::Left, "person", 0, 800).unwrap();
        session.db.execute_batch("DROP TRIGGER log_head_follows; DELETE FROM meta WHERE name = 'log_head'").unwrap();
        let folder = session.folder().to_owned();
        drop(session);
        assert_eq!(Session::open_to_read(&folder).unwrap().log().unwrap().len(), 1);
        let mut session = Session::open(&folder).unwrap();
        session.record_judgement(PairId(0), Choice::Right, "person", 1, 800).unwrap();
        assert_eq!(session.log().unwrap().len(), 2);
        session.db.execute_batch("DROP TRIGGER log_is_never_cut; DELETE FROM log WHERE entry = 2").unwrap();
        assert!(matches!(session.log(), Err(StoreError::Damaged { .. })));
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
