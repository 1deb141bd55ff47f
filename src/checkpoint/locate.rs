//! Resolution of `--model` to a folder: a path, or a repository in the local Hugging Face cache.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use super::embedded;
use crate::error::{Error, Result};

/// Short model names and their repository ids on the Hub.
pub const HUB_ALIASES: &[(&str, &str)] = &[
    ("gpt2", "openai-community/gpt2"),
    ("gpt2-medium", "openai-community/gpt2-medium"),
    ("gpt2-large", "openai-community/gpt2-large"),
    ("gpt2-xl", "openai-community/gpt2-xl"),
    ("distilgpt2", "distilbert/distilgpt2"),
];

/// The folder of `model`, searched in the cache that the environment specifies.
pub(super) fn locate(model: &str) -> Result<PathBuf> {
    locate_in(model, hub_cache_dir().as_deref())
}

/// The Hugging Face cache folder, from the environment; none without a home folder.
pub fn hub_cache_dir() -> Option<PathBuf> {
    hub_cache_dir_from(|name| std::env::var_os(name))
}

/// The Hugging Face home folder (`HF_HOME`), which contains the default cache and the access token.
pub fn hf_home_dir() -> Option<PathBuf> {
    hf_home_dir_from(|name| std::env::var_os(name))
}

/// The repository id of a model on the Hub: `openai-community/gpt2` for `gpt2`.
pub fn repo_id(model: &str) -> &str {
    HUB_ALIASES.iter().find(|(short, _)| *short == model).map_or(model, |(_, full)| full)
}

/// The cached models that have a configuration: the short name or repository id of each, and its folder.
pub fn cached_models() -> Vec<(String, PathBuf)> {
    hub_cache_dir().map(|cache| cached_models_in(&cache)).unwrap_or_default()
}

fn cached_models_in(cache: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(cache).into_iter().flatten().flatten();
    let mut all: Vec<(String, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().to_str()?.strip_prefix("models--")?.replacen("--", "/", 1);
            let short = HUB_ALIASES.iter().find(|(_, full)| *full == name).map_or(&*name, |(short, _)| short);
            Some((short.to_string(), snapshot(&entry.path())?))
        })
        .collect();
    all.sort();
    all
}

/// Prefers a folder with a config.json, then the cache. An existing path that is neither is returned too, so
/// that loading it reports the problem.
fn locate_in(model: &str, cache: Option<&Path>) -> Result<PathBuf> {
    let path = Path::new(model);
    if path.join("config.json").is_file() {
        return Ok(path.to_path_buf());
    }
    let may_be_repo_id = is_repo_id(model);
    if let Some(cache) = cache.filter(|_| may_be_repo_id) {
        let folder = repo_ids(model)
            .iter()
            .find_map(|name| snapshot(&cache.join(format!("models--{}", name.replace('/', "--")))));
        if let Some(folder) = folder {
            return Ok(folder);
        }
    }
    if !model.is_empty() && path.exists() {
        return Ok(path.to_path_buf());
    }

    let (searched, hint) = match cache {
        _ if !may_be_repo_id => (
            "no such folder".to_string(),
            format!(
                "expected a folder with config.json and model.safetensors, a name such as \
                 openai-community/gpt2, or {}",
                embedded::NAME
            ),
        ),
        Some(cache) => (
            format!("no such folder, and not in the Hugging Face cache {}", cache.display()),
            format!("run `hornbook pull {model}` to download it"),
        ),
        None => (
            "no such folder, and no Hugging Face cache, since HF_HUB_CACHE, HF_HOME and the home folder \
             are unset"
                .to_string(),
            format!("set HF_HUB_CACHE, then run `hornbook pull {model}`"),
        ),
    };
    let cached = cache.map(cached_models_in).unwrap_or_default();
    let names = cached.iter().map(|(name, _)| name.as_str());
    let aliases = HUB_ALIASES.iter().flat_map(|(short, full)| [*short, *full]);
    let is_alias = HUB_ALIASES.iter().any(|(short, full)| [*short, *full].contains(&model));
    let suggestion =
        Error::closest_match(model, names.chain(aliases).chain([embedded::NAME])).filter(|_| !is_alias);
    let hint = match suggestion {
        Some(name) if may_be_repo_id => format!("did you mean '{name}'? If not, {hint}"),
        Some(name) => format!("{hint}; did you mean '{name}'?"),
        None => hint,
    };
    Err(Error::ModelNotFound { name: model.escape_debug().to_string(), searched, hint })
}

/// Whether `model` is a valid repository id, `name` or `owner/name`, and not a path.
pub fn is_repo_id(model: &str) -> bool {
    let mut parts = model.split('/');
    let is_valid = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && (part.chars()).all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    parts.clone().count() <= 2 && parts.all(is_valid)
}

/// The repository ids `model` may be cached under: as typed, then its current or former id on the Hub.
fn repo_ids(model: &str) -> Vec<&str> {
    let mut names = vec![model];
    for &(short, full) in HUB_ALIASES {
        if model == short {
            names.push(full);
        } else if model == full {
            names.push(short);
        }
    }
    names
}

/// The cache folder of `huggingface_hub`
/// (<https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables>).
fn hub_cache_dir_from(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let cache = variable("HF_HUB_CACHE").filter(|value| !value.is_empty()).map(PathBuf::from);
    cache.or_else(|| Some(hf_home_dir_from(variable)?.join("hub")))
}

fn hf_home_dir_from(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let folder = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("HF_HOME").or_else(|| {
        folder("XDG_CACHE_HOME")
            .or_else(|| Some(folder("HOME").or_else(std::env::home_dir)?.join(".cache")))
            .map(|cache| cache.join("huggingface"))
    })
}

/// The snapshot of a cached repository at `refs/main`, else the newest one with a config.json.
fn snapshot(repository: &Path) -> Option<PathBuf> {
    let snapshots = repository.join("snapshots");
    let complete = |folder: &PathBuf| folder.join("config.json").is_file();
    let main = std::fs::read_to_string(repository.join("refs/main")).unwrap_or_default();
    let commit = Path::new(main.trim());
    let mut parts = commit.components();
    if matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
        let folder = snapshots.join(commit);
        if complete(&folder) {
            return Some(folder);
        }
    }
    let mtime = |folder: &PathBuf| {
        let modified = std::fs::metadata(folder).and_then(|metadata| metadata.modified());
        (modified.unwrap_or(SystemTime::UNIX_EPOCH), folder.clone())
    };
    std::fs::read_dir(snapshots)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(complete)
        .max_by_key(mtime)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    fn add_to_cache(cache: &Path, repository: &str, commit: &str) -> PathBuf {
        let folder = cache.join(repository).join("snapshots").join(commit);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config.json"), "{}").unwrap();
        folder
    }

    #[test]
    fn cache_dir_follows_environment() {
        let with = |set: &[(&str, &str)]| {
            let set: Vec<_> = set.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            hub_cache_dir_from(move |name| Some(set.iter().find(|(k, _)| k == name)?.1.clone().into()))
                .unwrap()
        };
        let home = ("HOME", "/home/me");
        let xdg = ("XDG_CACHE_HOME", "/xdg");
        let hf = ("HF_HOME", "/hf");
        let hub = ("HF_HUB_CACHE", "/hub");
        let path = Path::new;
        assert_eq!(with(&[home]), path("/home/me/.cache/huggingface/hub"));
        assert_eq!(with(&[home, xdg]), path("/xdg/huggingface/hub"));
        assert_eq!(with(&[home, xdg, hf]), path("/hf/hub"));
        assert_eq!(with(&[home, xdg, hf, hub]), path("/hub"));
        assert_eq!(with(&[home, ("HF_HOME", "")]), path("/home/me/.cache/huggingface/hub"));
    }

    #[test]
    fn snapshot_of_main_ref_precedes_newest_complete_snapshot() {
        let cache = tempfile::tempdir().unwrap();
        let cache = cache.path();
        let repository = "models--openai-community--gpt2";
        let old = add_to_cache(cache, repository, "0ld");
        let new = add_to_cache(cache, repository, "new");
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        fs::File::open(&old).and_then(|folder| folder.set_modified(hour_ago)).unwrap();
        fs::create_dir_all(cache.join(repository).join("snapshots/empty")).unwrap();

        for model in ["gpt2", "openai-community/gpt2"] {
            assert_eq!(locate_in(model, Some(cache)).unwrap(), new);
        }
        fs::create_dir_all(cache.join(repository).join("refs")).unwrap();
        let main = cache.join(repository).join("refs/main");
        for (commit, found) in
            [("0ld\n", &old), ("empty", &new), ("gone", &new), ("../..", &new), ("/", &new), ("", &new)]
        {
            fs::write(&main, commit).unwrap();
            assert_eq!(&locate_in("gpt2", Some(cache)).unwrap(), found, "{commit}");
        }
    }

    #[test]
    fn short_name_and_repo_id_find_same_folder() {
        let cache = tempfile::tempdir().unwrap();
        let folder = add_to_cache(cache.path(), "models--distilgpt2", "c");
        for model in ["distilgpt2", "distilbert/distilgpt2"] {
            assert_eq!(locate_in(model, Some(cache.path())).unwrap(), folder);
        }
    }

    #[test]
    fn unknown_model_error_names_cache_and_next_step() {
        let cache = tempfile::tempdir().unwrap();
        let error = |model: &str, cache: Option<&Path>| {
            let line = locate_in(model, cache).unwrap_err().to_string();
            assert!(!line.contains('\n'), "{line}");
            line
        };
        let line = error("gpt2-xl", Some(cache.path()));
        assert!(line.contains(cache.path().to_str().unwrap()), "{line}");
        assert!(line.ends_with("run `hornbook pull gpt2-xl` to download it"), "{line}");
        assert!(error("me/mine", Some(cache.path())).ends_with("run `hornbook pull me/mine` to download it"));
        add_to_cache(cache.path(), "models--me--my-own-model", "c");
        for (typo, expected) in
            [("gtp2-xl", "gpt2-xl"), ("fabel", "fable"), ("me/my-own-modle", "me/my-own-model")]
        {
            let line = error(typo, Some(cache.path()));
            let hint =
                format!("; did you mean '{expected}'? If not, run `hornbook pull {typo}` to download it");
            assert!(line.ends_with(&hint), "{line}");
        }
        assert!(error("gpt2", None).contains("HF_HUB_CACHE"));
        for path in ["./gpt2", "/no/such", "a/b/c", "gpt2/", "", "two words", "x\ny", "../no-such", "a\\b"] {
            let line = error(path, Some(cache.path()));
            assert!(!line.contains("Hugging Face cache"), "{line}");
        }
    }

    #[test]
    fn path_is_not_searched_in_cache() {
        let cache = tempfile::tempdir().unwrap();
        add_to_cache(cache.path(), "models--.--gpt2", "c");
        add_to_cache(cache.path(), "models--gpt2", "c");
        for path in ["./gpt2", "gpt2/", "../gpt2"] {
            assert!(locate_in(path, Some(cache.path())).is_err(), "{path}");
        }
    }
}
