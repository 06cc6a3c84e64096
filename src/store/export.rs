//! What other programs get from a session: the labels as JSON lines, the policy as a plain safetensors file.

use super::{Session, StoreError, arrays_file, disk};
use flipside_core::{Array, ArrayData, Arrays, Choice, Clip, PairReason, both_completions};
use serde::Serialize;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// The version of the policy file's layout, stored in its metadata.
const POLICY_FORMAT: u32 = 1;

/// Whether an export of labels contains what was shown, or only the clips' ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LabelFrames {
    /// Observations and actions of both clips: enough to train a reward model elsewhere.
    #[default]
    With,
    /// The clips' ids, without observations and actions.
    Without,
}

/// One line of the export of labels.
#[derive(Serialize)]
struct Label<'a> {
    judgement: u64,
    pair: u64,
    task: &'a str,
    choice: Choice,
    /// The probability that left is better, as a training target; null for a skip.
    target: Option<f32>,
    teacher: &'a str,
    at_ms: i64,
    thinking_ms: u32,
    reason: PairReason,
    asked_at: u64,
    left: Side<'a>,
    right: Side<'a>,
}

/// One of the two clips of a label.
#[derive(Serialize)]
struct Side<'a> {
    clip: u64,
    recorded_at: u64,
    dt: f32,
    steps: usize,
    task_return: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    obs: Option<Vec<&'a [f32]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actions: Option<Vec<&'a [f32]>>,
}

impl Session {
    /// Writes the standing judgements to `path`, one JSON object per line, oldest first, completely or not at all.
    /// Returns how many.
    ///
    /// ```text
    /// {"judgement": 4, "pair": 7, "task": "hopper",
    ///  "choice": "left" | "right" | "much-left" | "much-right" | "tie" | "skip", "target": 1 | 0 | 0.5 | null,
    ///  "teacher": "person", "at_ms": Unix ms, "thinking_ms": 1830,
    ///  "reason": "random" | "disagreement" | "repeat" | "past", "asked_at": env steps,
    ///  "left":  {"clip": 14, "recorded_at": env steps, "dt": seconds per step, "steps": T,
    ///            "task_return": sum of the task reward,
    ///            "obs": [T rows of O numbers], "actions": [T rows of A numbers]},
    ///  "right": {…}}
    /// ```
    /// `target` is the probability that left is better. `obs` are raw, not normalised. `actions` are as the robot
    /// received them. [`LabelFrames::Without`] leaves both out. A text-mode session writes the texts instead: `prompt`,
    /// `left` and `right`, with `chosen`, `rejected` and `margin` if one is better.
    pub fn export_labels(&self, path: &Path, frames: LabelFrames) -> Result<usize, StoreError> {
        disk::write_whole_with(path, |file: &mut File| {
            let mut out = BufWriter::new(file);
            let count = self.write_labels(&mut out, frames)?;
            out.flush().map_err(StoreError::Export)?;
            Ok(count)
        })
    }

    /// [`Session::export_labels`] to any writer.
    pub fn write_labels(&self, mut out: impl Write, frames: LabelFrames) -> Result<usize, StoreError> {
        if self.holds_texts() {
            return self.write_text_labels(out);
        }
        let standing = self.standing()?;
        for judgement in &standing {
            let pair = self.pair(judgement.pair)?.ok_or(StoreError::NoSuchPair(judgement.pair))?;
            let clips = [self.clip(pair.items[0])?, self.clip(pair.items[1])?];
            let [left, right] = clips.each_ref().map(|clip| side(clip, frames));
            let label = Label {
                judgement: judgement.id.0,
                pair: pair.id.0,
                task: &clips[0].task,
                choice: judgement.choice,
                target: judgement.choice.target(),
                teacher: &judgement.teacher,
                at_ms: judgement.at_ms,
                thinking_ms: judgement.thinking_ms,
                reason: pair.reason,
                asked_at: pair.asked_at,
                left,
                right,
            };
            serde_json::to_writer(&mut out, &label).map_err(|e| StoreError::Export(e.into()))?;
            out.write_all(b"\n").map_err(StoreError::Export)?;
        }
        Ok(standing.len())
    }
}

impl Session {
    /// Writes the standing judgements of texts. A line with a preference has a `chosen` and a `rejected` text, so that
    /// a reward model can be trained on the file, here and elsewhere, and a `margin`, which is 0 unless it is much
    /// better. A tie or a skip has none of them.
    fn write_text_labels(&self, mut out: impl Write) -> Result<usize, StoreError> {
        let standing = self.standing()?;
        let margin = self.settings().text().map_or(0.0, |run| run.reward.margin);
        for judgement in &standing {
            let pair = self.pair(judgement.pair)?.ok_or(StoreError::NoSuchPair(judgement.pair))?;
            let items = [self.item(pair.items[0])?, self.item(pair.items[1])?];
            // A text-mode session holds nothing else.
            let Some([left, right]) = both_completions(&items) else { continue };
            let order = match judgement.choice {
                Choice::Left | Choice::MuchLeft => Some([left, right]),
                Choice::Right | Choice::MuchRight => Some([right, left]),
                Choice::Tie | Choice::Skip => None,
            };
            let [chosen, rejected] = order.map_or([None, None], |both| both.map(|text| Some(text.text())));
            let label = TextLabel {
                judgement: judgement.id.0,
                pair: pair.id.0,
                prompt: &left.prompt,
                chosen,
                rejected,
                margin: order.map(|_| if judgement.choice.is_much() { margin } else { 0.0 }),
                left: left.text(),
                right: right.text(),
                choice: judgement.choice,
                target: judgement.choice.target(),
                teacher: &judgement.teacher,
                at_ms: judgement.at_ms,
                thinking_ms: judgement.thinking_ms,
            };
            serde_json::to_writer(&mut out, &label).map_err(|e| StoreError::Export(e.into()))?;
            out.write_all(b"\n").map_err(StoreError::Export)?;
        }
        Ok(standing.len())
    }
}

/// One line of the export of labels of texts.
#[derive(Serialize)]
struct TextLabel<'a> {
    judgement: u64,
    pair: u64,
    prompt: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    chosen: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    margin: Option<f64>,
    left: String,
    right: String,
    choice: Choice,
    target: Option<f32>,
    teacher: &'a str,
    at_ms: i64,
    thinking_ms: u32,
}

fn side(clip: &Clip, frames: LabelFrames) -> Side<'_> {
    let f = &clip.frames;
    // A stored clip is sound, so it has exactly `steps` rows. `chunks` would panic on rows without numbers.
    fn rows(numbers: &[f32], steps: usize) -> Vec<&[f32]> {
        let width = numbers.len() / steps.max(1);
        (0..steps).map(|t| &numbers[t * width..(t + 1) * width]).collect()
    }
    let with = frames == LabelFrames::With;
    Side {
        clip: clip.id.0,
        recorded_at: clip.recorded_at,
        dt: clip.dt,
        steps: f.steps,
        task_return: f.task_return(),
        obs: with.then(|| rows(&f.obs, f.steps)),
        actions: with.then(|| rows(&f.actions, f.steps)),
    }
}

/// What an exported policy needs besides its arrays. It is stored in the file's metadata under these names.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyMetadata {
    /// The task's name.
    pub task: String,
    /// Env steps that it was trained for.
    pub env_steps: u64,
    /// The run's seed.
    pub seed: u64,
    /// ε of the observation's normalisation.
    pub obs_epsilon: f64,
    /// Normalised observations are clipped to ± this.
    pub obs_clip: f64,
}

/// Writes a policy to `path` as safetensors, completely or not at all, for other programs to run. With x the raw
/// observation:
///
/// ```text
/// h = clip((x − obs_mean) / sqrt(obs_var + obs_epsilon), ±obs_clip)
/// h = tanh(actor.N.weight · h + actor.N.bias)   for each layer N but the last, which has no tanh
/// action = last h, clipped to the action space
/// ```
///
/// The last h is the mean of a normal distribution with standard deviation exp(log_std).
///
/// `arrays` must hold `actor.N.weight` `[out, in]` and `actor.N.bias` `[out]` for N = 0, 1, …, and `log_std` `[A]`,
/// `obs_mean` `[O]` and `obs_var` `[O]`. All are f32 or f64 and are written as f32. Other arrays are left out. The
/// metadata has the fields of [`PolicyMetadata`] and `format`, `obs_dim`, `act_dim` and `activation`.
///
/// # Errors
/// [`StoreError::Unsound`] names the array that is missing, of the wrong type or shape, or not finite.
pub fn export_policy(path: &Path, arrays: &Arrays, metadata: &PolicyMetadata) -> Result<(), StoreError> {
    let unsound = |reason: String| StoreError::Unsound { what: "the policy".to_owned(), reason };
    let (policy, obs_dim, act_dim) = policy_arrays(arrays).map_err(unsound)?;
    let entries = [
        ("format", POLICY_FORMAT.to_string()),
        ("task", metadata.task.clone()),
        ("obs_dim", obs_dim.to_string()),
        ("act_dim", act_dim.to_string()),
        ("activation", "tanh".to_owned()),
        ("env_steps", metadata.env_steps.to_string()),
        ("seed", metadata.seed.to_string()),
        ("obs_epsilon", metadata.obs_epsilon.to_string()),
        ("obs_clip", metadata.obs_clip.to_string()),
    ];
    let entries: HashMap<String, String> = entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    disk::write_whole(path, &arrays_file::encode_plain(entries, &policy).map_err(unsound)?)
}

/// The policy's arrays as f32, checked to be one network, with O and A; or what is wrong with them.
fn policy_arrays(arrays: &Arrays) -> Result<(Arrays, usize, usize), String> {
    let mut policy = Arrays::new();
    let mut take = |name: &str, shape: &dyn Fn(&[usize]) -> bool, expected: String| -> Result<Vec<usize>, String> {
        let array = arrays.get(name).ok_or(format!("array {name} is missing"))?;
        let numbers: Vec<f32> = match &array.data {
            ArrayData::F32(v) => v.clone(),
            ArrayData::F64(v) => v.iter().map(|&x| x as f32).collect(),
            _ => return Err(format!("array {name} is not of floats")),
        };
        if !shape(&array.shape) {
            return Err(format!("array {name} has shape {:?}, not {expected}", array.shape));
        }
        if numbers.iter().any(|x| !x.is_finite()) {
            return Err(format!("array {name} has numbers that are not finite"));
        }
        policy.insert(name.to_owned(), Array { shape: array.shape.clone(), data: ArrayData::F32(numbers) });
        Ok(array.shape.clone())
    };
    let obs_dim = take("obs_mean", &|s| s.len() == 1, "[O]".to_owned())?[0];
    take("obs_var", &|s| s == [obs_dim], format!("[{obs_dim}]"))?;
    let mut width = obs_dim;
    let layers = (0..).take_while(|n| *n == 0 || arrays.contains_key(&format!("actor.{n}.weight")));
    for n in layers {
        let weight = take(&format!("actor.{n}.weight"), &|s| s.len() == 2 && s[1] == width, format!("[out, {width}]"))?;
        width = weight[0];
        take(&format!("actor.{n}.bias"), &|s| s == [width], format!("[{width}]"))?;
    }
    take("log_std", &|s| s == [width], format!("[{width}]"))?;
    Ok((policy, obs_dim, width))
}

#[cfg(test)]
mod tests {
    use super::super::clips::fixtures::*;
    use super::*;
    use flipside_core::PairId;
    use serde_json::Value;

    #[test]
    fn labels_are_one_json_object_a_standing_judgement() {
        let (folder, mut session) = session();
        for (id, choice) in [Choice::Left, Choice::Tie, Choice::Skip, Choice::Right].into_iter().enumerate() {
            put_pair(&mut session, id as u64);
            let judgement =
                session.record_judgement(PairId(id as u64), choice, "person", 1_000 + id as i64, 1830).unwrap();
            if choice == Choice::Tie {
                session.retract(judgement.id, 2_000).unwrap();
            }
        }
        let path = folder.path().join("labels.jsonl");
        assert_eq!(session.export_labels(&path, LabelFrames::With).unwrap(), 3);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let field = |name: &str| lines.iter().map(|l| l[name].clone()).collect::<Vec<_>>();
        assert_eq!(field("choice"), ["left", "skip", "right"]);
        assert_eq!(field("target"), [Value::from(1.0), Value::Null, Value::from(0.0)]);
        assert_eq!(field("pair"), [0, 2, 3]);
        assert_eq!(field("at_ms"), [1000, 1002, 1003]);
        assert_eq!(field("teacher"), ["person"; 3]);
        // The numbers are the clip's, exactly.
        let (right, frames) = (&lines[2]["right"], clip(7).frames);
        assert_eq!(right["clip"], 7);
        for (name, width, numbers) in
            [("obs", frames.obs_dim, &frames.obs), ("actions", frames.act_dim, &frames.actions)]
        {
            let rows: Vec<Vec<f32>> = serde_json::from_value(right[name].clone()).unwrap();
            assert_eq!((rows.len(), rows[0].len()), (frames.steps, width));
            assert_eq!(&rows.concat(), numbers);
        }

        let mut bare = Vec::new();
        session.write_labels(&mut bare, LabelFrames::Without).unwrap();
        let first: Value = serde_json::from_slice(bare.split(|&b| b == b'\n').next().unwrap()).unwrap();
        assert_eq!((&first["left"]["clip"], first["left"].get("obs")), (&Value::from(0), None));
    }

    #[test]
    fn a_policy_is_checked_and_written_with_nothing_else() {
        let policy = || {
            Arrays::from([
                ("actor.0.weight".to_owned(), Array::f32(&[4, 3], vec![0.5; 12])),
                ("actor.0.bias".to_owned(), Array::f32(&[4], vec![0.25; 4])),
                ("actor.1.weight".to_owned(), Array::f32(&[2, 4], vec![-1.0; 8])),
                ("actor.1.bias".to_owned(), Array::f32(&[2], vec![0.0; 2])),
                ("log_std".to_owned(), Array::f32(&[2], vec![-0.5; 2])),
                ("obs_mean".to_owned(), Array::f64(&[3], vec![0.1; 3])),
                ("obs_var".to_owned(), Array::f64(&[3], vec![2.0; 3])),
                ("critic.0.weight".to_owned(), Array::f32(&[1], vec![1.0])),
            ])
        };
        let metadata = PolicyMetadata {
            task: "hopper".to_owned(),
            env_steps: 4096,
            seed: u64::MAX,
            obs_epsilon: 1e-8,
            obs_clip: 10.0,
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.safetensors");
        export_policy(&path, &policy(), &metadata).unwrap();
        let (entries, arrays) = arrays_file::decode_plain(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(arrays.len(), 7);
        assert_eq!(arrays["obs_mean"], Array::f32(&[3], vec![0.1; 3]));
        assert_eq!(arrays["actor.1.weight"], policy()["actor.1.weight"]);
        let expected = [("obs_dim", "3"), ("act_dim", "2"), ("seed", "18446744073709551615"), ("activation", "tanh")];
        for (name, value) in expected {
            assert_eq!(entries[name], value);
        }

        let refuse = |name: &str, array: Option<Array>, words: &str| {
            let mut arrays = policy();
            arrays.remove(name);
            arrays.extend(array.map(|a| (name.to_owned(), a)));
            let error = export_policy(&path, &arrays, &metadata).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        refuse("log_std", None, "array log_std is missing");
        refuse("log_std", Some(Array::f32(&[3], vec![0.0; 3])), "array log_std has shape [3], not [2]");
        refuse("actor.0.weight", None, "array actor.0.weight is missing");
        refuse("actor.1.weight", Some(Array::f32(&[2, 5], vec![0.0; 10])), "has shape [2, 5], not [out, 4]");
        refuse("actor.1.bias", Some(Array::f32(&[2], vec![f32::NAN; 2])), "not finite");
        refuse("obs_var", Some(Array::u64(vec![1; 3])), "not of floats");
    }
}
