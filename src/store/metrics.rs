//! Learning curves as they were measured.

use super::{Session, StoreError};

/// One measured number.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Env steps of training done when it was measured.
    pub env_steps: u64,
    /// Which curve, e.g. `true_return`.
    pub name: String,
    /// The number; NaN stays NaN.
    pub value: f64,
    /// Unix time in milliseconds.
    pub at_ms: i64,
}

impl Session {
    /// Appends a batch of metrics, all or nothing.
    pub fn put_metrics(&mut self, batch: &[Metric]) -> Result<(), StoreError> {
        self.transact(|transaction| {
            let mut insert = transaction
                .prepare_cached("INSERT INTO metrics (env_steps, name, value, at_ms) VALUES (?1, ?2, ?3, ?4)")?;
            for metric in batch {
                // SQLite stores NaN as NULL.
                insert.execute((metric.env_steps, &metric.name, metric.value, metric.at_ms))?;
            }
            Ok(())
        })
    }

    /// All metrics, in the order in which they were written.
    pub fn metrics(&self) -> Result<Vec<Metric>, StoreError> {
        self.sql(|db| {
            let mut statement =
                db.prepare_cached("SELECT env_steps, name, value, at_ms FROM metrics ORDER BY entry")?;
            statement
                .query_map([], |row| {
                    Ok(Metric {
                        env_steps: row.get(0)?,
                        name: row.get(1)?,
                        value: row.get::<_, Option<f64>>(2)?.unwrap_or(f64::NAN),
                        at_ms: row.get(3)?,
                    })
                })?
                .collect()
        })
    }

    /// Deletes the metrics measured after `env_steps`. A run that continues from a checkpoint at that step measures
    /// them again.
    pub fn drop_metrics_after(&mut self, env_steps: u64) -> Result<(), StoreError> {
        self.must_be_writable()?;
        self.sql(|db| db.execute("DELETE FROM metrics WHERE env_steps > ?1", [env_steps])).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::super::clips::fixtures::session;
    use super::*;

    #[test]
    fn metrics_come_back_in_order_and_can_be_rewound() {
        let (_folder, mut session) = session();
        let metric = |env_steps: u64, value: f64| Metric { env_steps, name: "kl".to_owned(), value, at_ms: 5 };
        let batch = [metric(2048, 0.1), metric(4096, f64::NAN), metric(4096, f64::NEG_INFINITY), metric(6144, 1e-300)];
        session.put_metrics(&batch).unwrap();
        let there = session.metrics().unwrap();
        // NaN is not equal to itself, so compare what is printed.
        assert_eq!(format!("{there:?}"), format!("{batch:?}"));
        session.drop_metrics_after(4096).unwrap();
        assert_eq!(format!("{:?}", session.metrics().unwrap()), format!("{:?}", &batch[..3]));
    }
}
