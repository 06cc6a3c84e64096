//! Writes posts and comparisons of the built-in grammar in the published layout of TL;DR, so that the recipe runs
//! without a download, and with a gold score.

use crate::lab::LabError;
use crate::store::{make_folder, read_text, write_text};
use flipside_core::{Choice, Seed, Stream};
use flipside_text::grammar::posts::{self, Post};
use flipside_text::teacher::{GoldTeacher, Noise};
use rand::RngExt;
use serde::Serialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The policies whose summaries are compared, and how much care each takes: the share of its sentences that are true.
const POLICIES: [(&str, f64); 3] = [("ref", 0.9), ("sup2", 0.6), ("sup1", 0.3)];

/// Held-out posts for each post to train on, of the validation and of the test set: one in ten.
const HELD_OUT: usize = 10;

/// Further posts, without a usable summary, for each that has one: one in four.
const MORE_QUERIES: usize = 4;

/// What to write.
#[derive(Clone, Debug)]
pub struct TldrExamplesPlan {
    /// Posts with a summary to train on.
    pub posts: usize,
    /// Comparisons to train on.
    pub comparisons: usize,
    /// How the teacher of the comparisons errs; `doubt` is in units of the gold score.
    pub noise: Noise,
    /// The seed; it determines all files.
    pub seed: u64,
    /// The folder.
    pub output: PathBuf,
}

/// What was written.
#[derive(Clone, Debug, Serialize)]
pub struct TldrExamplesReport {
    /// The folder.
    pub folder: PathBuf,
    /// Lines of each file.
    pub files: Vec<(String, usize)>,
    /// Share of the comparisons, of all splits, in which the chosen summary has the higher gold score.
    pub agreement: f64,
    /// The share that the teacher's noise lets expect. No reward model can do better.
    pub ceiling: f64,
}

/// Writes the files.
///
/// # Errors
///
/// A folder that cannot be written, or that holds another file of one of these names.
pub fn write_tldr_examples(plan: &TldrExamplesPlan) -> Result<TldrExamplesReport, LabError> {
    let seed = Seed(plan.seed);
    let mut stream = seed.stream("text.tldr.posts");
    let mut teacher = GoldTeacher::new(plan.noise, seed.stream("text.tldr.teacher"));
    let mut writer = Writer { next_id: 0, files: Vec::new() };
    let held_out = (plan.posts / HELD_OUT).max(1);
    let mut draw = |count: usize| -> Vec<Value> { (0..count).map(|_| writer.post(&mut stream)).collect() };
    let (train, valid, test) = (draw(plan.posts), draw(held_out), draw(held_out));
    let more = draw(plan.posts / MORE_QUERIES);
    let queries: Vec<Value> = train.iter().chain(&more).cloned().collect();
    for (file, lines) in [
        ("tldr_3_filtered/train.jsonl", &train),
        ("tldr_3_filtered/valid.jsonl", &valid),
        ("tldr_3_filtered/test.jsonl", &test),
        ("tldr_3_filtered_queries/train.jsonl", &queries),
    ] {
        writer.add(file, lines);
    }
    let (mut agreed, mut ceiling, mut count) = (0.0, 0.0, 0.0);
    let held_out = (plan.comparisons / HELD_OUT).max(1);
    // The numbers are those of published files with these splits.
    for (batch, split, comparisons) in
        [("batch3", "train", plan.comparisons), ("batch11", "valid1", held_out), ("batch12", "valid2", held_out)]
    {
        let mut lines = Vec::new();
        for _ in 0..comparisons {
            let post = writer.post(&mut stream);
            let (line, [chosen, rejected]) = compared(&post, batch, split, &mut teacher, &mut stream);
            agreed += f64::from(u8::from(chosen > rejected));
            ceiling += plan.noise.ceiling(chosen, rejected);
            count += 1.0;
            lines.push(line);
        }
        writer.add(&format!("comparisons/{batch}.json"), &lines);
    }
    Ok(TldrExamplesReport {
        folder: plan.output.clone(),
        files: writer.write(&plan.output)?,
        agreement: agreed / f64::max(count, 1.0),
        ceiling: ceiling / f64::max(count, 1.0),
    })
}

/// A file to write.
struct Examples {
    /// Its name in the folder.
    name: String,
    text: String,
    lines: usize,
}

struct Writer {
    next_id: usize,
    files: Vec<Examples>,
}

impl Writer {
    /// A post with its author's summary.
    fn post(&mut self, stream: &mut Stream) -> Value {
        let Post { subreddit, title, text } = posts::post(stream);
        let summary = posts::summary(&text, POLICIES[0].1, stream);
        self.next_id += 1;
        let id = format!("t3_{:06}", self.next_id);
        json!({ "id": id, "subreddit": subreddit, "title": title, "post": text, "summary": summary })
    }

    fn add(&mut self, name: &str, lines: &[Value]) {
        let text = lines.iter().map(|line| format!("{line}\n")).collect();
        self.files.push(Examples { name: name.to_owned(), text, lines: lines.len() });
    }

    /// Writes all files, and none if there is another one in place of any of them: it may have been downloaded.
    fn write(self, output: &Path) -> Result<Vec<(String, usize)>, LabError> {
        for Examples { name, text, .. } in &self.files {
            let path = output.join(name);
            if path.exists() && read_text(&path).ok().as_ref() != Some(text) {
                return Err(LabError::Text(format!(
                    "{} is there and is not the same; name another folder with --output, or move the file away.",
                    path.display()
                )));
            }
        }
        for Examples { name, text, .. } in &self.files {
            let path = output.join(name);
            if let Some(folder) = path.parent() {
                make_folder(folder)?;
            }
            write_text(&path, text)?;
        }
        Ok(self.files.into_iter().map(|file| (file.name, file.lines)).collect())
    }
}

/// A comparison of two summaries with different gold scores, and the scores of the chosen and the rejected one.
fn compared(
    post: &Value,
    batch: &str,
    split: &str,
    teacher: &mut GoldTeacher,
    stream: &mut Stream,
) -> (Value, [f64; 2]) {
    let text = post["post"].as_str().unwrap_or_default();
    loop {
        let mut summary = || {
            let (policy, care) = POLICIES[stream.random_range(0..POLICIES.len())];
            let summary = posts::summary(text, care, stream);
            let score = posts::score(text, &summary).unwrap_or_default();
            (json!({ "text": format!(" {summary}"), "policy": policy, "note": null }), score)
        };
        let (left, right) = (summary(), summary());
        if left.1 == right.1 {
            continue;
        }
        let choice = match teacher.judge(left.1, right.1) {
            Choice::Left | Choice::MuchLeft => 0,
            Choice::Right | Choice::MuchRight => 1,
            Choice::Tie | Choice::Skip => continue,
        };
        // 1 is sure of the first summary, 9 of the second.
        let sure = (4.0 * (2.0 * teacher.noise().ceiling(left.1, right.1) - 1.0)).ceil().clamp(1.0, 4.0) as i64;
        let confidence = if choice == 1 { 5 + sure } else { 5 - sure };
        let info = json!({ "id": post["id"], "post": text, "title": post["title"], "subreddit": post["subreddit"] });
        let line = json!({
            "info": info, "summaries": [left.0, right.0], "choice": choice, "worker": GoldTeacher::NAME,
            "batch": batch, "split": split, "extra": { "confidence": confidence },
        });
        return (line, if choice == 0 { [left.1, right.1] } else { [right.1, left.1] });
    }
}
