//! Language models in Hugging Face's layout: a folder with `config.json`, the tokenizer's files, and weights as
//! safetensors, in one file or in shards with an index. Adapters in PEFT's format are such folders too.
//!
//! Pickled weights (`.bin`, `.pt`) are never opened, because reading one runs whatever program is in it.

use super::{StoreError, arrays_file, disk, gguf};
use flipside_core::{Array, Arrays, fnv1a, fnv1a_on};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The text files of a model's folder that are read, and written if present.
const TEXTS: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "adapter_config.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "chat_template.json",
];

/// A model's weights in one file.
const WHOLE: &str = "model.safetensors";

/// The index: which array is in which shard.
const INDEX: &str = "model.safetensors.index.json";

/// The metadata entry of shipped weights that holds their checksum.
const CHECKSUM: &str = "checksum";

/// An adapter's weights.
const ADAPTER: &str = "adapter_model.safetensors";

/// Extensions of pickled files, which contain programs as well as data.
const PICKLED: &[&str] = &["bin", "pt", "pth", "ckpt", "pkl", "pickle"];

/// What a file of Git LFS begins with that was not fetched: Git has only noted where it is.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Default size of a shard in bytes: 5 GB, as Hugging Face splits weights.
pub const SHARD: usize = 5_000_000_000;

/// A model's folder in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelFolder {
    /// The text files by name, such as `config.json`.
    pub texts: BTreeMap<String, String>,
    /// The weights, by their names in the files.
    pub weights: Arrays,
}

impl ModelFolder {
    /// Reads a folder: the text files in it that matter, and all weights, sharded or not. A whole file comes before an
    /// index, as in transformers.
    ///
    /// # Errors
    ///
    /// There is no such folder; it has no safetensors, or only pickled weights; a shard is missing, damaged or not
    /// named plainly.
    pub fn read(folder: &Path) -> Result<ModelFolder, StoreError> {
        let texts = read_texts(folder)?;
        let [whole, adapter] = [WHOLE, ADAPTER].map(|name| folder.join(name));
        if whole.is_file() {
            return Ok(ModelFolder { texts, weights: read_weights(&whole)?.0 });
        }
        let mut weights = Arrays::new();
        if let Some(index) = read_text_if_there(&folder.join(INDEX))? {
            for (shard, names) in shards(&folder.join(INDEX), &index)? {
                let path = folder.join(&shard);
                let damaged = |reason| StoreError::DamagedModel { path: path.clone(), reason };
                if !path.exists() {
                    return Err(damaged(format!("it is missing, and {INDEX} names it")));
                }
                let (found, left_out) = read_weights(&path)?;
                let missing = |name: &&String| !found.contains_key(*name) && !left_out.contains(*name);
                if let Some(name) = names.iter().find(missing) {
                    return Err(damaged(format!("the index says that {name} is in it, and it is not")));
                }
                // As transformers does, those that the index does not name are taken, too.
                weights.extend(found);
            }
            return Ok(ModelFolder { texts, weights });
        }
        if adapter.is_file() {
            return Ok(ModelFolder { texts, weights: read_weights(&adapter)?.0 });
        }
        Err(match pickled(folder)? {
            Some(path) => StoreError::Pickled(path),
            None => StoreError::NoWeights(folder.to_owned()),
        })
    }

    /// The text files only: enough for the tokenizer.
    ///
    /// # Errors
    ///
    /// There is no such folder.
    pub fn read_texts(folder: &Path) -> Result<BTreeMap<String, String>, StoreError> {
        read_texts(folder)
    }

    /// A hash of all files of a folder, by their names: equal models have equal ones. The weights are not read into
    /// memory as a whole.
    ///
    /// # Errors
    ///
    /// There is no such folder, or a file cannot be read.
    pub fn digest(folder: &Path) -> Result<String, StoreError> {
        let failed = |error| StoreError::io(folder, error);
        let entries = fs::read_dir(folder).map_err(failed)?;
        let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        files.retain(|path| path.is_file());
        files.sort();
        let mut hash = fnv1a(b"");
        let mut buffer = vec![0; 1 << 20];
        for path in &files {
            let failed = |error| StoreError::io(path, error);
            let mut file = File::open(path).map_err(failed)?;
            let length = file.metadata().map_err(failed)?.len();
            // Before its content stand a file's name and length, so that different folders never hash the same bytes.
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            hash = fnv1a_on(fnv1a_on(hash, &(name.len() as u64).to_le_bytes()), name);
            hash = fnv1a_on(hash, &length.to_le_bytes());
            loop {
                let count = file.read(&mut buffer).map_err(failed)?;
                if count == 0 {
                    break;
                }
                hash = fnv1a_on(hash, &buffer[..count]);
            }
        }
        Ok(format!("{hash:016x}"))
    }

    /// Writes the folder, completely or not at all: beside, synced and renamed. Weights of more than `shard` bytes are
    /// split into files of at most that size, with an index. A single array that is larger gets its own file. An
    /// adapter is never split.
    ///
    /// # Errors
    ///
    /// The folder exists and is not empty, or the disk refuses.
    pub fn write(&self, folder: &Path, shard: usize) -> Result<(), StoreError> {
        let failed = |error| StoreError::io(folder, error);
        if !is_empty_folder(folder)? {
            return Err(StoreError::ModelFolderTaken(folder.to_owned()));
        }
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(failed)?;
        let beside = disk::partial(folder);
        // A run that died has left it. Its extension shows that it is ours.
        if beside.is_dir() {
            fs::remove_dir_all(&beside).map_err(failed)?;
        }
        fs::create_dir(&beside).map_err(failed)?;
        let written = self.fill(&beside, shard).and_then(|()| {
            // On Unix a rename replaces an empty folder. Elsewhere the folder has to be removed first.
            if cfg!(not(unix)) && folder.is_dir() {
                fs::remove_dir(folder).map_err(failed)?;
            }
            fs::rename(&beside, folder).map_err(failed)?;
            disk::sync_folder(parent)
        });
        written.inspect_err(|_| drop(fs::remove_dir_all(&beside)))
    }

    /// [`ModelFolder::write`] in place of an existing folder, such as one that a killed run has left. Only for
    /// Flipside's own folders.
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub fn replace(&self, folder: &Path, shard: usize) -> Result<(), StoreError> {
        if folder.is_dir() {
            fs::remove_dir_all(folder).map_err(|error| StoreError::io(folder, error))?;
        }
        self.write(folder, shard)
    }

    /// Writes the folder in place of the one that is there, to be shipped with the program: in one file of weights,
    /// whose metadata has these entries and a checksum of the arrays. Equal content gives equal bytes.
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub fn ship(&self, folder: &Path, entries: &[(&str, String)]) -> Result<(), StoreError> {
        let checksum = (CHECKSUM, arrays_file::checksum("", &self.weights));
        let entries = entries.iter().cloned().chain([checksum, ("format", "pt".to_owned())]);
        let metadata = entries.map(|(name, value)| (name.to_owned(), value)).collect();
        let bytes = arrays_file::encode_plain(metadata, &self.weights).and_then(arrays_file::in_order);
        let bytes = bytes.map_err(|reason| unsound("the model", &reason))?;
        let texts = ModelFolder { texts: self.texts.clone(), weights: Arrays::new() };
        texts.replace(folder, SHARD)?;
        disk::write_whole(&folder.join(WHOLE), &bytes)
    }

    /// The folder that [`ModelFolder::ship`] wrote, from the content of its files, and its metadata. `name` is what an
    /// error calls it.
    ///
    /// # Errors
    ///
    /// Weights that cannot be read, or whose checksum is another.
    pub fn shipped(
        name: &str,
        texts: &[(&str, &str)],
        weights: &[u8],
    ) -> Result<(ModelFolder, HashMap<String, String>), StoreError> {
        let damaged = |reason: String| StoreError::DamagedModel { path: name.into(), reason };
        let (metadata, weights) = arrays_file::decode_plain(weights).map_err(damaged)?;
        if metadata.get(CHECKSUM) != Some(&arrays_file::checksum("", &weights)) {
            return Err(damaged("its numbers do not match its checksum".to_owned()));
        }
        let texts = texts.iter().map(|&(name, text)| (name.to_owned(), text.to_owned())).collect();
        Ok((ModelFolder { texts, weights }, metadata))
    }

    fn fill(&self, folder: &Path, shard: usize) -> Result<(), StoreError> {
        for (name, text) in &self.texts {
            if !is_plain(name) {
                return Err(unsound(name, "it is not the name of a file"));
            }
            disk::write_whole(&folder.join(name), text.as_bytes())?;
        }
        if self.weights.is_empty() {
            return Ok(());
        }
        let adapter = self.texts.contains_key("adapter_config.json");
        let parts = split(&self.weights, if adapter { usize::MAX } else { shard });
        if let [whole] = parts.as_slice() {
            return write_weights(&folder.join(if adapter { ADAPTER } else { WHOLE }), whole, &self.weights);
        }
        let mut places = Map::new();
        for (i, names) in parts.iter().enumerate() {
            let file = format!("model-{:05}-of-{:05}.safetensors", i + 1, parts.len());
            write_weights(&folder.join(&file), names, &self.weights)?;
            places.extend(names.iter().map(|name| ((*name).clone(), json!(file))));
        }
        let total: usize = self.weights.values().map(Array::bytes).sum();
        let index = json!({ "metadata": { "total_size": total }, "weight_map": places });
        disk::write_whole(&folder.join(INDEX), format!("{index:#}\n").as_bytes())
    }
}

/// Reads a GGUF file: its metadata and its tensors by llama.cpp's names. Quantised tensors become bf16 with `half`,
/// else f32.
///
/// # Errors
///
/// The file is damaged, is no GGUF file, or has tensors of a number type that is not read.
pub fn read_gguf(path: &Path, half: bool) -> Result<(Map<String, Value>, Arrays), StoreError> {
    let bytes = fs::read(path).map_err(|error| StoreError::io(path, error))?;
    if bytes.starts_with(LFS_POINTER) {
        return Err(StoreError::LfsPointer(path.to_owned()));
    }
    if !bytes.starts_with(gguf::MAGIC) {
        return Err(StoreError::NoModelFolder(path.to_owned()));
    }
    gguf::decode(&bytes, half).map_err(|reason| StoreError::UnreadGguf { path: path.to_owned(), reason })
}

/// Reads a text file.
///
/// # Errors
///
/// The file does not exist, or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, StoreError> {
    fs::read_to_string(path).map_err(|error| StoreError::io(path, error))
}

/// Writes a text file, whole or not at all.
///
/// # Errors
///
/// The disk refuses.
pub fn write_text(path: &Path, text: &str) -> Result<(), StoreError> {
    disk::write_whole(path, text.as_bytes())
}

/// Makes a folder and those above it, if they are not there.
///
/// # Errors
///
/// The disk refuses.
pub fn make_folder(path: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(path).map_err(|error| StoreError::io(path, error))
}

/// Whether a folder is empty or not there.
///
/// # Errors
///
/// The disk refuses to say.
pub fn is_empty_folder(path: &Path) -> Result<bool, StoreError> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(StoreError::io(path, error)),
    }
}

/// Removes a folder with all that is in it, if it is there.
///
/// # Errors
///
/// The disk refuses.
pub fn remove_folder(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io(path, error)),
        _ => Ok(()),
    }
}

fn read_text_if_there(path: &Path) -> Result<Option<String>, StoreError> {
    match fs::read_to_string(path) {
        Ok(text) if text.as_bytes().starts_with(LFS_POINTER) => Err(StoreError::LfsPointer(path.to_owned())),
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(StoreError::DamagedModel { path: path.to_owned(), reason: "it is not UTF-8".to_owned() })
        }
        Err(error) => Err(StoreError::io(path, error)),
    }
}

fn read_texts(folder: &Path) -> Result<BTreeMap<String, String>, StoreError> {
    if !folder.is_dir() {
        return Err(StoreError::NoModelFolder(folder.to_owned()));
    }
    let mut texts = BTreeMap::new();
    for name in TEXTS {
        if let Some(text) = read_text_if_there(&folder.join(name))? {
            texts.insert((*name).to_owned(), text);
        }
    }
    Ok(texts)
}

/// The arrays of a file of weights, and the names of those whose number type is none that a model computes in.
fn read_weights(path: &Path) -> Result<(Arrays, BTreeSet<String>), StoreError> {
    let bytes = fs::read(path).map_err(|error| StoreError::io(path, error))?;
    if bytes.starts_with(LFS_POINTER) {
        return Err(StoreError::LfsPointer(path.to_owned()));
    }
    let damaged = |reason| StoreError::DamagedModel { path: path.to_owned(), reason };
    arrays_file::decode_known(&bytes).map(|(_, arrays, left_out)| (arrays, left_out)).map_err(damaged)
}

fn write_weights(path: &Path, names: &[&String], weights: &Arrays) -> Result<(), StoreError> {
    let part: BTreeMap<&str, &Array> = names.iter().map(|&name| (name.as_str(), &weights[name])).collect();
    // Without this entry `transformers` refuses the file.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = arrays_file::encode_plain(metadata, part).map_err(|reason| unsound("the model", &reason))?;
    disk::write_whole(path, &bytes)
}

/// The shards that an index names, each with the names of its arrays.
fn shards(path: &Path, index: &str) -> Result<BTreeMap<String, BTreeSet<String>>, StoreError> {
    let damaged = |reason: String| StoreError::DamagedModel { path: path.to_owned(), reason };
    let index: Value = serde_json::from_str(index).map_err(|error| damaged(error.to_string()))?;
    let places = index["weight_map"].as_object().ok_or_else(|| damaged("it has no \"weight_map\"".to_owned()))?;
    let mut shards: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, file) in places {
        let file = file.as_str().unwrap_or_default();
        if !is_plain(file) || !file.ends_with(".safetensors") {
            return Err(damaged(format!(
                "it says that {name} lies in {file:?}, which is no safetensors file beside it"
            )));
        }
        shards.entry(file.to_owned()).or_default().insert(name.clone());
    }
    Ok(shards)
}

/// The names of the arrays of each file, in order.
fn split(weights: &Arrays, most: usize) -> Vec<Vec<&String>> {
    let mut parts: Vec<Vec<&String>> = vec![Vec::new()];
    let mut room = most;
    for (name, array) in weights {
        let bytes = array.bytes();
        #[expect(clippy::expect_used, reason = "the list begins with one part and only grows")]
        let last = parts.last_mut().expect("a part");
        if bytes > room && !last.is_empty() {
            parts.push(vec![name]);
            room = most;
        } else {
            last.push(name);
        }
        room = room.saturating_sub(bytes);
    }
    parts
}

/// A file of pickled weights in this folder, if there is one.
fn pickled(folder: &Path) -> Result<Option<PathBuf>, StoreError> {
    let failed = |error| StoreError::io(folder, error);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|ending| PICKLED.iter().any(|known| ending.eq_ignore_ascii_case(known))) {
            found.push(path);
        }
    }
    Ok(found.into_iter().min())
}

/// Whether this names a file in a folder and does not lead out of it.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(std::path::Component::Normal(one)), None) if one == name)
        && !name.contains('\\')
}

fn unsound(what: &str, reason: &str) -> StoreError {
    StoreError::Unsound { what: what.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flipside_core::ArrayData;

    fn model() -> ModelFolder {
        let half = Array { shape: vec![2, 2], data: ArrayData::Bf16(vec![0x3f80, 0xc000, 0x7fc0, 1]) };
        ModelFolder {
            texts: BTreeMap::from([("config.json".to_owned(), "{\"model_type\": \"gpt2\"}".to_owned())]),
            weights: Arrays::from([
                ("wte.weight".to_owned(), Array::f32(&[4, 2], (0..8).map(|x| x as f32).collect())),
                ("h.0.bias".to_owned(), Array { shape: vec![2], data: ArrayData::F16(vec![0x3c00, 0x8000]) }),
                ("h.0.weight".to_owned(), half),
                ("ln_f.weight".to_owned(), Array::f32(&[2], vec![-0.0, f32::MIN_POSITIVE])),
            ]),
        }
    }

    fn files(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_comes_back_whole_and_in_shards() {
        let root = tempfile::tempdir().unwrap();
        for (shard, expected) in [(SHARD, 1), (40, 2), (1, 4)] {
            let folder = root.path().join(format!("models/{shard}"));
            model().write(&folder, shard).unwrap();
            assert_eq!(ModelFolder::read(&folder).unwrap(), model(), "{shard}");
            let weights = files(&folder).iter().filter(|name| name.ends_with(".safetensors")).count();
            assert_eq!((weights, folder.join(INDEX).exists()), (expected, expected > 1));
            assert_eq!(ModelFolder::read_texts(&folder).unwrap(), model().texts);
        }
        assert_eq!(files(&root.path().join("models")), ["1", "40", &SHARD.to_string()]);
        let bytes = fs::read(root.path().join(format!("models/{SHARD}/{WHOLE}"))).unwrap();
        assert_eq!(arrays_file::decode_plain(&bytes).unwrap().0["format"], "pt");
        let index: Value =
            serde_json::from_str(&read_text(&root.path().join("models/40").join(INDEX)).unwrap()).unwrap();
        // 8 · 4 + 2 · 2 + 4 · 2 + 2 · 4 bytes.
        assert_eq!(index["metadata"]["total_size"], 52);
        assert_eq!(index["weight_map"]["wte.weight"], "model-00002-of-00002.safetensors");
    }

    #[test]
    fn shipped_weights_are_the_same_bytes_and_notice_a_changed_one() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("shipped");
        let entries = ["a", "b", "c", "d"].map(|name| (name, format!("{name}…")));
        let bytes: Vec<Vec<u8>> = (0..4)
            .map(|_| {
                model().ship(&folder, &entries).unwrap();
                fs::read(folder.join(WHOLE)).unwrap()
            })
            .collect();
        assert!(bytes.iter().all(|again| *again == bytes[0]));
        assert_eq!(ModelFolder::read(&folder).unwrap(), model());
        let texts = [("config.json", "{\"model_type\": \"gpt2\"}")];
        let (read, metadata) = ModelFolder::shipped("it", &texts, &bytes[0]).unwrap();
        assert_eq!((read, metadata["c"].as_str(), metadata["format"].as_str()), (model(), "c…", "pt"));
        let mut changed = bytes[0].clone();
        *changed.last_mut().unwrap() ^= 1;
        let error = ModelFolder::shipped("it", &texts, &changed).unwrap_err().to_string();
        assert!(error.contains("checksum"), "{error}");
    }

    #[test]
    fn a_digest_tells_folders_apart() {
        let root = tempfile::tempdir().unwrap();
        let digest = |files: &[(&str, &str)]| {
            let folder = root.path().join("model");
            remove_folder(&folder).unwrap();
            fs::create_dir(&folder).unwrap();
            files.iter().for_each(|(name, text)| fs::write(folder.join(name), text).unwrap());
            ModelFolder::digest(&folder).unwrap()
        };
        let first = digest(&[("a", "weights"), ("b", "")]);
        assert_eq!(first, digest(&[("b", ""), ("a", "weights")]));
        for other in [
            &[("a", "weighty"), ("b", "")][..],
            &[("a", "weight"), ("b", "s")],
            &[("a", ""), ("b", "weights")],
            &[("a", "weights")],
            &[("a", "weights"), ("c", "")],
        ] {
            assert_ne!(first, digest(other), "{other:?}");
        }
    }

    #[test]
    fn an_adapter_has_the_name_that_peft_looks_for() {
        let root = tempfile::tempdir().unwrap();
        let mut adapter = model();
        adapter.texts = BTreeMap::from([("adapter_config.json".to_owned(), "{}".to_owned())]);
        let folder = root.path().join("adapter");
        adapter.write(&folder, 1).unwrap();
        assert_eq!(files(&folder), ["adapter_config.json", ADAPTER]);
        assert_eq!(ModelFolder::read(&folder).unwrap(), adapter);
    }

    #[test]
    fn what_cannot_be_read_is_refused_and_nothing_is_written_over() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("model");
        let refused = |folder: &Path| ModelFolder::read(folder).unwrap_err().to_string();
        assert!(refused(&folder).contains("is no folder"));
        fs::create_dir(&folder).unwrap();
        assert!(refused(&folder).contains("holds no weights"));
        fs::write(folder.join("pytorch_model.bin"), b"\x80\x02").unwrap();
        let words = refused(&folder);
        assert!(words.contains("pytorch_model.bin") && words.contains("run"), "{words}");
        let taken = model().write(&folder, SHARD).unwrap_err().to_string();
        assert!(taken.contains("holds other files"), "{taken}");
        assert_eq!(files(&folder), ["pytorch_model.bin"]);
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 548105171\n";
        fs::write(folder.join(WHOLE), pointer).unwrap();
        assert!(refused(&folder).contains("Git LFS"), "{}", refused(&folder));
        fs::write(folder.join("config.json"), pointer).unwrap();
        assert!(refused(&folder).contains("config.json is a pointer"), "{}", refused(&folder));
        fs::remove_file(folder.join("config.json")).unwrap();
        fs::write(folder.join(WHOLE), b"not safetensors").unwrap();
        assert!(refused(&folder).contains(WHOLE));
        fs::remove_file(folder.join(WHOLE)).unwrap();
        fs::write(folder.join("tokenizer_config.json"), b"{\"eos_token\": \"\xff\"}").unwrap();
        let words = refused(&folder);
        assert!(words.contains("tokenizer_config.json cannot be read (it is not UTF-8)"), "{words}");
        fs::remove_file(folder.join("tokenizer_config.json")).unwrap();
        for (index, words) in [
            ("{}", "weight_map"),
            (r#"{"weight_map": {"a": "../other/model.safetensors"}}"#, "beside it"),
            (r#"{"weight_map": {"a": "/etc/passwd"}}"#, "beside it"),
            (r#"{"weight_map": {"a": "pytorch_model.bin"}}"#, "beside it"),
            (r#"{"weight_map": {"a": "gone.safetensors"}}"#, "gone.safetensors cannot be read (it is missing"),
        ] {
            fs::write(folder.join(INDEX), index).unwrap();
            assert!(refused(&folder).contains(words), "{index}: {}", refused(&folder));
        }
    }

    /// As transformers 5.24 reads them.
    #[test]
    fn a_whole_file_comes_before_an_index_and_shards_are_read_whole() {
        let root = tempfile::tempdir().unwrap();
        let [whole, shards] = ["whole", "shards"].map(|name| root.path().join(name));
        model().write(&whole, SHARD).unwrap();
        fs::write(whole.join(INDEX), r#"{"weight_map": {"a": "model-00001-of-00002.safetensors"}}"#).unwrap();
        assert_eq!(ModelFolder::read(&whole).unwrap(), model());
        model().write(&shards, 40).unwrap();
        let mut index: Value = serde_json::from_str(&read_text(&shards.join(INDEX)).unwrap()).unwrap();
        let places = index["weight_map"].as_object_mut().unwrap();
        // One whose shard is named for another array, too.
        let twice = |file: &Value| places.values().filter(|other| *other == file).count() > 1;
        let name = places.iter().find(|(_, file)| twice(file)).map(|(name, _)| name.clone()).unwrap();
        places.remove(&name);
        fs::write(shards.join(INDEX), index.to_string()).unwrap();
        assert_eq!(ModelFolder::read(&shards).unwrap(), model());
    }

    #[test]
    fn what_a_run_that_died_has_left_is_no_hindrance() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("model");
        let beside = disk::partial(&folder);
        fs::create_dir(&beside).unwrap();
        fs::write(beside.join("half"), b"of it").unwrap();
        fs::create_dir(&folder).unwrap();
        model().write(&folder, SHARD).unwrap();
        assert_eq!(files(root.path()), ["model"]);
        assert_eq!(files(&folder), ["config.json", WHOLE]);
    }
}
