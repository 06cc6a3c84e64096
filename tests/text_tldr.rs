//! The summarisation recipe, from generated files to its figures: whole, killed and continued.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use flipside::lab::{TokenizerPlan, train_tokenizer};
use flipside::settings::{TextPrecision, TextShape};
use flipside::store::{ModelFolder, SHARD, Session};
use flipside_core::Seed;
use flipside_text::data::Reading;
use flipside_text::{Bundle, tokenizer_of};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(300);

fn program(words: &[&str]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_flipside"));
    program.args(words);
    program
}

/// The last line of stdout as JSON.
fn json(words: &[&str]) -> Value {
    let output = program(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(String::from_utf8_lossy(&output.stdout).lines().last().unwrap()).unwrap()
}

fn refusal(words: &[&str]) -> String {
    let output = program(words).output().unwrap();
    assert!(!output.status.success(), "{words:?}");
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

/// A model folder with random weights, and a tokenizer of the words of the posts.
fn small_model(root: &Path, posts: PathBuf) -> PathBuf {
    let (words, folder) = (root.join("words"), root.join("model"));
    let plan = TokenizerPlan {
        data: Some(posts),
        reading: Reading::default(),
        vocabulary: 700,
        seed: 0,
        output: words.clone(),
    };
    train_tokenizer(&plan).unwrap();
    let tokenizer = tokenizer_of(&ModelFolder::read_texts(&words).unwrap()).unwrap();
    let shape = TextShape { vocabulary: 700, context: 224, width: 16, layers: 2, heads: 2 };
    let (texts, weights) = Bundle::random(&shape, tokenizer, TextPrecision::F32, Seed(3)).to_parts().unwrap();
    ModelFolder { texts, weights }.write(&folder, SHARD).unwrap();
    folder
}

/// Every point of every curve of a session.
fn curves(session: &Path) -> Vec<(u64, String, f64)> {
    let session = Session::open_to_read(session).unwrap();
    session.metrics().unwrap().into_iter().map(|m| (m.env_steps, m.name, m.value)).collect()
}

/// Copies the files of a folder.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

const SETTINGS: &str = "text.supervised.batch_size=8; text.reward.batch_size=8; text.ppo.batch_size=8; text.updates=8; \
                        text.ppo.update_epochs=1; text.supervised.optimiser.learning_rate=1e-3";

#[test]
fn the_recipe_runs_on_generated_files_and_a_kill_changes_no_figure() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
    let data = path("data");
    let made = json(&["text", "tldr", "examples", "--posts", "80", "--comparisons", "60", "--output", &data, "--json"]);
    assert!(made["ceiling"].as_f64().unwrap() > 0.75, "{made}");
    let model = small_model(root.path(), root.path().join("data/tldr_3_filtered/train.jsonl"));
    let model = model.to_str().unwrap();
    let words = |session: &str| -> Vec<String> {
        let words = ["text", "tldr", "run", "--data", &data, "--model", model, "--session", session, "--json", "--set"];
        words.into_iter().chain([SETTINGS]).map(str::to_owned).collect()
    };
    let run = |session: &str| json(&words(session).iter().map(String::as_str).collect::<Vec<_>>());
    let evaluate = |session: &str| {
        let how = ["--posts", "6", "--best-of", "1,2,4", "--json"];
        json(&[&["text", "tldr", "evaluate", "--session", session][..], &how].concat())
    };
    let whole = path("whole");
    let done = run(&whole);
    assert_eq!(done["sessions"].as_array().unwrap().len(), 2);
    let found = evaluate(&whole);

    // Rewards are 0 at the references, whatever the model has learned.
    let row = |what: &str, policy: &str| -> Value {
        let rows = found[what].as_array().unwrap();
        rows.iter().find(|row| row["policy"] == policy).unwrap_or_else(|| panic!("{policy}: {found}")).clone()
    };
    let reward = |row: &Value| row["reward"].as_f64().unwrap();
    let spread = (reward(&row("kl", "best-of-4")) - reward(&row("kl", "best-of-1"))).abs();
    assert!(reward(&row("summaries", "reference")).abs() < 1.0 + 3.0 * spread, "{found}");
    assert!(reward(&row("kl", "best-of-1")) < reward(&row("kl", "best-of-2")), "{found}");
    assert!(reward(&row("kl", "best-of-2")) < reward(&row("kl", "best-of-4")), "{found}");
    assert_eq!(row("kl", "best-of-1")["kl"], 0.0);
    for policy in ["ppo-2", "ppo-4", "ppo-6", "ppo-8"] {
        let row = row("kl", policy);
        assert!(row["kl"].as_f64().unwrap().abs() < 20.0 && row["kl_std_error"].is_number(), "{row}");
    }
    for policy in ["supervised", "ppo"] {
        let row = row("summaries", policy);
        for by in ["judge", "gold"] {
            let rate = row[by]["win_rate"].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&rate) && row[by]["length_controlled"]["win_rate"].is_number(), "{row}");
        }
        assert!(row["tokens"].as_f64().unwrap() > 0.0 && row["rouge"]["rouge1"].is_number(), "{row}");
    }
    assert_eq!(row("summaries", "reference")["gold"]["win_rate"], 0.5);
    for split in found["comparisons"].as_array().unwrap() {
        assert!(split["pairs"].as_u64() == Some(6) && split["gold_accuracy"].as_f64().unwrap() > 0.5, "{split}");
    }
    // What was written is on disk, and the same again.
    let file = std::fs::read_to_string(root.path().join("whole/evaluation/evaluation.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&file).unwrap(), found);
    assert_eq!(evaluate(&whole), found);

    // Killed in each part, and continued with the same command. All paths are those of the working folder, and the
    // recipe is moved each time.
    let marks = ["recipe.json", "policy/models/supervised", "policy/models/ppo-00004", "judge/session.db"];
    for (place, mark) in marks.iter().enumerate() {
        let name = |place: usize| format!("killed-{place}");
        let words = words(&path(&name(place)));
        let relative = |word: &String| word.strip_prefix(&path("")).unwrap_or(word).to_owned();
        let words: Vec<String> = words.iter().map(relative).collect();
        assert!(words.contains(&name(place)) && words.contains(&"data".to_owned()), "{words:?}");
        let mut child = program(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let mut child = child.current_dir(&root).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let began = Instant::now();
        while !Path::new(&path(&name(place))).join(mark).exists() && child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < PATIENCE, "{mark}");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        std::fs::rename(path(&name(place)), path(&name(place + 1))).unwrap();
    }
    let killed = path(&format!("killed-{}", marks.len()));
    json(&["text", "tldr", "run", "--session", &killed, "--json"]);
    for session in ["policy", "judge"] {
        assert_eq!(curves(&Path::new(&killed).join(session)), curves(&Path::new(&whole).join(session)), "{session}");
    }
    let mut again = evaluate(&killed);
    again["file"] = found["file"].clone();
    assert_eq!(again, found);

    // Of another policy, the summaries are written anew. It is the supervised model, so its KL is 0. Of the policies
    // that were saved on the way, those count that there are.
    let model = |name: &str| Path::new(&killed).join("policy/models").join(name);
    std::fs::remove_dir_all(model("ppo")).unwrap();
    std::fs::remove_dir_all(model("ppo-00004")).unwrap();
    copy(&model("supervised"), &model("ppo"));
    let found = evaluate(&killed);
    let rows = found["kl"].as_array().unwrap();
    let of_ppo: Vec<&Value> = rows.iter().filter(|row| row["policy"].as_str().unwrap().starts_with("ppo")).collect();
    let names: Vec<&str> = of_ppo.iter().map(|row| row["policy"].as_str().unwrap()).collect();
    assert_eq!(names, ["ppo-2", "ppo-6", "ppo-8"]);
    assert_eq!(of_ppo[2]["kl"], 0.0, "{found}");

    // What an evaluation lacks is found out before any summary is written.
    std::fs::remove_dir_all(Path::new(&killed).join("evaluation")).unwrap();
    std::fs::remove_dir_all(Path::new(&killed).join("judge/models/reward")).unwrap();
    let refused = refusal(&["text", "tldr", "evaluate", "--session", &killed]);
    assert!(refused.contains("judge") && refused.contains("tldr run"), "{refused}");
    assert!(!Path::new(&killed).join("evaluation").exists());
    for temperature in ["-1", "nan", "inf"] {
        let words = ["text", "tldr", "evaluate", "--session", &whole, &format!("--temperature={temperature}")];
        assert!(refusal(&words).contains("at least 0"), "{temperature}");
    }

    let refused = refusal(&["text", "tldr", "run", "--session", &whole, "--set", "text.prompts=x"]);
    assert!(refused.contains("text.prompts"), "{refused}");
    let refused = refusal(&["text", "tldr", "run", "--session", &whole, "--judge-share", "0.1"]);
    assert!(refused.contains("--judge-share 0.5"), "{refused}");
    let refused = refusal(&["text", "tldr", "evaluate", "--session", &data]);
    assert!(refused.contains("no recipe"), "{refused}");
}
