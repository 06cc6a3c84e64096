//! Completions: what a text-mode session shows in place of clips. A row is the completion as JSON, with a checksum.

use super::clips::{Refused, insert_pair};
use super::{Session, StoreError};
use flipside_core::{Completion, Item, ItemId, Pair, both_clips, both_completions, fnv1a};
use rusqlite::{OptionalExtension, Transaction};
use std::sync::Arc;

impl Session {
    /// Stores a pair and its two items, `[left, right]`, all or nothing. Items that are already stored stay as they
    /// are.
    ///
    /// # Errors
    /// [`StoreError::Unsound`] if an item's numbers are not sound, the items are not the pair's, or they are not of
    /// this session's kind; [`StoreError::NumberTaken`] if another pair or item has its id.
    pub fn put_items(&mut self, pair: &Pair, items: &[Item; 2]) -> Result<(), StoreError> {
        if let Some([left, right]) = both_clips(items) {
            return self.put_pair(pair, [left, right]);
        }
        let mixed =
            |reason: &str| StoreError::Unsound { what: format!("pair {}", pair.id.0), reason: reason.to_owned() };
        let Some([left, right]) = both_completions(items) else {
            return Err(mixed("it compares a clip with a text"));
        };
        if !self.holds_texts() {
            return Err(mixed("it compares texts, and the session holds clips"));
        }
        if [left.id, right.id] != pair.items {
            return Err(mixed("it names other texts than it came with"));
        }
        let rows = [row(left)?, row(right)?];
        let taken = self.pair(pair.id)?;
        if taken.is_some_and(|there| there != *pair) {
            return Err(StoreError::NumberTaken { what: "pair", id: pair.id.0 });
        }
        self.transact(|transaction| {
            for (completion, json) in [left, right].into_iter().zip(&rows) {
                insert(transaction, completion, json)?;
            }
            if taken.is_none() { insert_pair(transaction, pair) } else { Ok(()) }
        })
    }

    /// The clip or completion with this id.
    ///
    /// # Errors
    /// [`StoreError::NoSuchClip`]; [`StoreError::DamagedClip`] if its row does not match its checksum.
    pub fn item(&self, id: ItemId) -> Result<Item, StoreError> {
        if !self.holds_texts() {
            return Ok(Item::Clip(Arc::new(self.clip(id)?)));
        }
        let (json, checksum): (String, i64) = self
            .sql(|db| {
                let mut statement = db.prepare_cached("SELECT json, checksum FROM completions WHERE id = ?1")?;
                statement.query_row([id.0], |row| Ok((row.get(0)?, row.get(1)?))).optional()
            })?
            .ok_or(StoreError::NoSuchClip(id))?;
        let damaged = |reason: String| StoreError::DamagedClip { folder: self.folder().to_owned(), id, reason };
        if sum(&json) != checksum {
            return Err(damaged("its bytes do not match its checksum".to_owned()));
        }
        let completion: Completion = serde_json::from_str(&json).map_err(|e| damaged(e.to_string()))?;
        Ok(Item::Completion(Arc::new(completion)))
    }

    /// Whether this is a text-mode session.
    pub fn holds_texts(&self) -> bool {
        self.settings().text().is_some()
    }
}

fn row(completion: &Completion) -> Result<String, StoreError> {
    let unsound = |reason: String| StoreError::Unsound { what: format!("completion {}", completion.id.0), reason };
    if !completion.is_sound() {
        return Err(unsound("its lists have different lengths, or a number in it is not finite".to_owned()));
    }
    serde_json::to_string(completion).map_err(|e| unsound(e.to_string()))
}

fn sum(json: &str) -> i64 {
    // SQLite's integers are signed, and only the bits matter.
    fnv1a(json.as_bytes()).cast_signed()
}

fn insert(transaction: &Transaction, completion: &Completion, json: &str) -> Result<(), Refused> {
    let id = completion.id.0;
    let there: Option<i64> = transaction
        .prepare_cached("SELECT checksum FROM completions WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    match there {
        Some(checksum) if checksum == sum(json) => Ok(()),
        Some(_) => Err(Refused::Here(StoreError::NumberTaken { what: "completion", id })),
        None => {
            let mut put = transaction.prepare_cached("INSERT INTO completions VALUES (?1, ?2, ?3)")?;
            put.execute((id, json, sum(json)))?;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{RunSettings, TextRun};
    use flipside_core::{Choice, PairId, PairReason};

    fn completion(id: u64) -> Completion {
        Completion {
            id: ItemId(id),
            prompt: "Review of the \"new\" kettle:".to_owned(),
            prompt_tokens: vec![0, 7],
            tokens: vec![5, 9, 1],
            pieces: vec![" The spout".to_owned(), " pours – ✓\n".to_owned(), String::new()],
            log_ratios: vec![0.1, -3.4e-38, f32::MIN_POSITIVE],
            stopped: true,
            recorded_at: 40 + id,
            gold: Some(1.0 / 3.0),
        }
    }

    fn pair(id: u64) -> Pair {
        Pair { id: PairId(id), items: [ItemId(2 * id), ItemId(2 * id + 1)], reason: PairReason::Random, asked_at: 3 }
    }

    fn items(id: u64) -> [Item; 2] {
        [2 * id, 2 * id + 1].map(|id| Item::Completion(Arc::new(completion(id))))
    }

    #[test]
    fn texts_are_stored_beside_their_judgements() {
        let folder = tempfile::tempdir().unwrap();
        let settings = RunSettings::of_text(TextRun::default());
        let path = folder.path().join("s");
        let mut session = Session::create(&path, &settings).unwrap();
        assert!(session.holds_texts());
        session.put_items(&pair(1), &items(1)).unwrap();
        session.put_items(&pair(1), &items(1)).unwrap();
        session.record_judgement(PairId(1), Choice::Left, "person", 5, 6).unwrap();
        drop(session);
        let mut session = Session::open(&path).unwrap();
        assert_eq!(session.settings().text(), settings.text());
        assert_eq!([2, 3].map(|id| session.item(ItemId(id)).unwrap()), items(1));
        assert_eq!((session.standing().unwrap().len(), session.next_item_id().unwrap()), (1, ItemId(4)));
        let mut lines = Vec::new();
        assert_eq!(session.write_labels(&mut lines, Default::default()).unwrap(), 1);
        let line: serde_json::Value = serde_json::from_slice(&lines).unwrap();
        assert_eq!((&line["prompt"], &line["chosen"]), (&completion(2).prompt.into(), &completion(2).text().into()));
        let refused = |session: &mut Session, pair: Pair, items: [Item; 2]| session.put_items(&pair, &items).is_err();
        assert!(refused(&mut session, pair(2), items(1)));
        let mut other = completion(2);
        other.tokens[0] = 6;
        assert!(refused(&mut session, pair(1), [Item::Completion(Arc::new(other)), items(1)[1].clone()]));
        let mut unsound = completion(4);
        unsound.pieces.pop();
        assert!(refused(&mut session, pair(2), [Item::Completion(Arc::new(unsound)), items(2)[1].clone()]));
        assert!(session.item(ItemId(4)).is_err());
        // Damage must be reported, and never read as another text.
        let db = rusqlite::Connection::open(path.join("session.db")).unwrap();
        db.execute("UPDATE completions SET json = replace(json, 'kettle', 'teapot') WHERE id = 2", []).unwrap();
        assert!(matches!(session.item(ItemId(2)), Err(StoreError::DamagedClip { .. })));
    }
}
