//! Jinja2's `cycler`: values one after the other, and then from the first again.

use super::arguments::wrong;
use minijinja::value::{Object, ObjectRepr, Rest, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    place: AtomicUsize,
}

/// `cycler('odd', 'even')`.
pub(super) fn cycler(items: Rest<Value>) -> Result<Value, Error> {
    match items.is_empty() {
        true => Err(wrong("at least one item has to be provided")),
        false => Ok(Value::from_object(Cycler { items: items.0, place: AtomicUsize::new(0) })),
    }
}

impl Cycler {
    fn current(&self) -> Option<Value> {
        self.items.get(self.place.load(Ordering::Relaxed)).cloned()
    }
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        (key.as_str() == Some("current")).then(|| self.current()).flatten()
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        let () = from_args(args)?;
        match method {
            "next" => {
                let now = self.current().unwrap_or_default();
                // A template runs on one thread.
                self.place.store((self.place.load(Ordering::Relaxed) + 1) % self.items.len(), Ordering::Relaxed);
                Ok(now)
            }
            "reset" => {
                self.place.store(0, Ordering::Relaxed);
                Ok(Value::from(()))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}
