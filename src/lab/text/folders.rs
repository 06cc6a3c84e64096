//! Where a session stores its models, and reading and writing of model folders.

use crate::lab::LabError;
use crate::settings::{TextPrecision, TextRun, TextStage};
use crate::store::{ModelFolder, SHARD, read_arrays, read_gguf, write_arrays};
use flipside_core::Arrays;
use flipside_learn::Reader;
use flipside_text::model::Transformer;
use flipside_text::{Bundle, BundleError, IlqlHeads, Parts, ScalarHead, gguf};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The folder that contains a session's models.
pub(super) fn models(session: &Path) -> PathBuf {
    session.join("models")
}

/// The folder of the model that a pipeline stage produces: `models/base` and so on.
pub(in crate::lab) fn of_stage(session: &Path, stage: TextStage) -> PathBuf {
    models(session).join(stage.name())
}

/// The last stage of a run that ends with `until` whose model the session has and that writes texts. That is the model
/// that training has come to; `None` before the first one.
pub(in crate::lab) fn last_stage(session: &Path, until: TextStage) -> Option<TextStage> {
    let mut writes = until.path().iter().rev().copied().filter(|&stage| stage != TextStage::Reward);
    writes.find(|&stage| of_stage(session, stage).is_dir())
}

/// The folder of the adapter alone, for pipeline stages that trained one.
pub(in crate::lab) fn adapter_of(session: &Path, stage: TextStage) -> PathBuf {
    models(session).join(format!("{}-adapter", stage.name()))
}

/// The model that the training of this stage started from: the session's own, or the one that was given with its
/// adapter. `None` if there is neither.
pub(super) fn started_from(session: &Path, run: &TextRun, stage: TextStage) -> Option<(PathBuf, Option<PathBuf>)> {
    let before = if stage <= TextStage::Supervised { TextStage::Base } else { TextStage::Supervised };
    let own = of_stage(session, before);
    match own.is_dir() && stage > TextStage::Base {
        true => Some((own, None)),
        false => run.model.clone().map(|model| (model, run.adapter.clone())),
    }
}

/// The updates after which PPO saves its policy on the way: `count` of them, at equal distances, without the last one.
pub(super) fn policy_checkpoints(count: u64, updates: u64) -> Vec<u64> {
    let mut all: Vec<u64> = (1..=count).map(|i| updates * i / (count + 1)).collect();
    all.retain(|&update| update > 0 && update < updates);
    all.dedup();
    all
}

/// The folder of the policy after this update: `models/ppo-00025` and so on.
pub(super) fn of_policy_checkpoint(session: &Path, update: u64) -> PathBuf {
    models(session).join(format!("{}-{update:05}", TextStage::Ppo.name()))
}

/// The file of the critic of the policy that PPO came to. It is beside the policy's folder, so that transformers finds
/// nothing there that is none of the policy's.
fn critic_file(session: &Path) -> PathBuf {
    models(session).join(format!("{}-critic.safetensors", TextStage::Ppo.name()))
}

/// TRL's name of a critic's linear layer on the policy's hidden states.
const CRITIC: &str = "v_head.summary";

/// Writes PPO's critic.
pub(super) fn write_critic(session: &Path, critic: &ScalarHead) -> Result<(), LabError> {
    let mut arrays = Arrays::new();
    critic.to_arrays(CRITIC, &mut arrays);
    Ok(write_arrays(&critic_file(session), &BTreeMap::new(), &arrays)?)
}

/// The critic of a session's policy; `None` if there is none.
pub(super) fn critic(session: &Path, policy: &Transformer) -> Result<Option<ScalarHead>, LabError> {
    let file = critic_file(session);
    if !file.is_file() {
        return Ok(None);
    }
    let (_, arrays) = read_arrays(&file)?;
    Ok(Some(ScalarHead::from_arrays(CRITIC, policy.config().width, policy.device(), Reader(&arrays))?))
}

/// Reads a model from its folder, or from a GGUF file. The folder of an adapter gives the base model that it names,
/// with the adapter.
pub(in crate::lab) fn read(folder: &Path, precision: TextPrecision) -> Result<Bundle, LabError> {
    if folder.is_file() {
        let (metadata, arrays) = read_gguf(folder, precision == TextPrecision::Bf16)?;
        let parts = gguf::parts(&metadata, arrays).map_err(BundleError::from)?;
        return Ok(Bundle::from_parts(&parts, precision)?);
    }
    let ModelFolder { texts, weights } = ModelFolder::read(folder)?;
    match texts.get("adapter_config.json") {
        Some(config) if !texts.contains_key("config.json") => {
            read_with(&base_of(folder, config)?, Some(folder), precision)
        }
        _ => Ok(Bundle::from_parts(&(texts, weights), precision)?),
    }
}

/// Reads a model that training starts from: an adapter, if there is one, is merged into it.
pub(super) fn read_merged(folder: &Path, adapter: Option<&Path>, precision: TextPrecision) -> Result<Bundle, LabError> {
    let mut bundle = read_with(folder, adapter, precision)?;
    if adapter.is_some() {
        bundle.model = bundle.model.merged();
    }
    Ok(bundle)
}

/// The heads of ILQL that a model's folder has beside this model.
pub(super) fn ilql_heads(folder: &Path, bundle: &Bundle) -> Result<IlqlHeads, LabError> {
    let weights = if folder.is_dir() { ModelFolder::read(folder)?.weights } else { Default::default() };
    let config = bundle.model.config();
    if !weights.keys().any(|name| name.starts_with("ilql_heads.")) {
        return Err(LabError::Text(format!(
            "{} has no heads of ILQL; train them with `flipside text ilql`, or leave --beta out.",
            folder.display()
        )));
    }
    Ok(IlqlHeads::from_arrays(config.width, config.vocabulary, bundle.model.device(), &weights)?)
}

/// The folder or GGUF file of an adapter's base model.
fn base_of(adapter: &Path, config: &str) -> Result<PathBuf, LabError> {
    let shown = adapter.display();
    let config: serde_json::Value = serde_json::from_str(config).map_err(|error| {
        LabError::Text(format!(
            "{shown}/adapter_config.json cannot be read ({error}); take the one that came with the adapter."
        ))
    })?;
    let Some(name) = config["base_model_name_or_path"].as_str().filter(|name| !name.is_empty()) else {
        return Err(LabError::Text(format!(
            "{shown} is an adapter and names no base model; write the base model's folder into its adapter_config.json, as \
             base_model_name_or_path."
        )));
    };
    // As it stands, or beside the adapter's files.
    let is_model = |path: &PathBuf| path.is_file() || path.join("config.json").is_file();
    let known = [PathBuf::from(name), adapter.join(name)].into_iter().find(is_model);
    known.ok_or_else(|| {
        LabError::Text(format!(
            "{shown} is an adapter of {name}, which is no model here; put the base model there, or write its folder into \
             adapter_config.json, as base_model_name_or_path."
        ))
    })
}

/// Reads a model and attaches the adapter in another folder.
pub(in crate::lab) fn read_with(
    folder: &Path,
    adapter: Option<&Path>,
    precision: TextPrecision,
) -> Result<Bundle, LabError> {
    let mut bundle = read(folder, precision)?;
    if let Some(adapter) = adapter {
        let ModelFolder { texts, weights } = ModelFolder::read(adapter)?;
        bundle.attach(&(texts, weights))?;
    }
    Ok(bundle)
}

/// Writes a new model folder.
pub(in crate::lab) fn write(folder: &Path, (texts, weights): Parts, shard: Option<usize>) -> Result<(), LabError> {
    Ok(ModelFolder { texts, weights }.write(folder, shard.unwrap_or(SHARD))?)
}

/// Writes a model folder inside the session and replaces the one that is there.
pub(super) fn replace(folder: &Path, (texts, weights): Parts) -> Result<(), LabError> {
    Ok(ModelFolder { texts, weights }.replace(folder, SHARD)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_came_to_the_model_of_its_last_stage() {
        let scratch = tempfile::tempdir().unwrap();
        let session = scratch.path();
        let mut run = TextRun { model: Some("given".into()), until: TextStage::OnlineDpo, ..TextRun::default() };
        assert_eq!(last_stage(session, run.until), None);
        let given = Some((PathBuf::from("given"), None));
        assert_eq!(started_from(session, &run, TextStage::OnlineDpo), given);
        for (written, expected) in [
            (TextStage::Base, TextStage::Base),
            (TextStage::Supervised, TextStage::Supervised),
            // A reward model writes nothing.
            (TextStage::Reward, TextStage::Supervised),
            // Nor is one of another way.
            (TextStage::Ppo, TextStage::Supervised),
            (TextStage::OnlineDpo, TextStage::OnlineDpo),
        ] {
            std::fs::create_dir_all(of_stage(session, written)).unwrap();
            assert_eq!(last_stage(session, run.until), Some(expected));
        }
        let own = |stage| Some((of_stage(session, stage), None));
        assert_eq!(started_from(session, &run, TextStage::OnlineDpo), own(TextStage::Supervised));
        assert_eq!(started_from(session, &run, TextStage::Supervised), own(TextStage::Base));
        assert_eq!(started_from(session, &run, TextStage::Base), given);
        run.until = TextStage::Ppo;
        assert_eq!(last_stage(session, run.until), Some(TextStage::Ppo));
    }

    #[test]
    fn an_adapter_finds_its_base_in_a_folder_and_in_a_gguf_file() {
        let scratch = tempfile::tempdir().unwrap();
        let (adapter, base) = (scratch.path().join("adapter"), scratch.path().join("base"));
        std::fs::create_dir_all(&base).unwrap();
        std::fs::create_dir_all(&adapter).unwrap();
        std::fs::write(base.join("config.json"), "{}").unwrap();
        std::fs::write(scratch.path().join("base.gguf"), "GGUF").unwrap();
        let named = |name: &str| serde_json::json!({ "base_model_name_or_path": name }).to_string();
        for known in [&base, &scratch.path().join("base.gguf")] {
            assert_eq!(&base_of(&adapter, &named(known.to_str().unwrap())).unwrap(), known);
        }
        for beside in ["../base", "../base.gguf"] {
            assert_eq!(base_of(&adapter, &named(beside)).unwrap(), adapter.join(beside));
        }
        let error = base_of(&adapter, &named("owner/model")).unwrap_err().to_string();
        assert!(error.contains("owner/model, which is no model here"), "{error}");
    }
}
