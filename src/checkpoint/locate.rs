//! From what a user types after `--model` to a folder: a path, or a name in the local Hugging Face cache.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use super::embedded;
use crate::error::{Error, Result};

/// The models that are also known without their owner, and the names the hub has for them.
pub const HUB_ALIASES: [(&str, &str); 5] = [
    ("gpt2", "openai-community/gpt2"),
    ("gpt2-medium", "openai-community/gpt2-medium"),
    ("gpt2-large", "openai-community/gpt2-large"),
    ("gpt2-xl", "openai-community/gpt2-xl"),
    ("distilgpt2", "distilbert/distilgpt2"),
];

/// The folder of `model`, with the cache where the environment says it is.
pub(super) fn locate(model: &str) -> Result<PathBuf> {
    locate_in(model, hub_cache_dir().as_deref())
}

/// The Hugging Face cache, where the environment says it is; none without a home folder.
pub fn hub_cache_dir() -> Option<PathBuf> {
    hub_cache_dir_by(|name| std::env::var_os(name))
}

/// The folder the cache is in by default, beside what else belongs to the hub.
pub fn hf_home_dir() -> Option<PathBuf> {
    hf_home_dir_by(|name| std::env::var_os(name))
}

/// A model's name as the hub has it: `openai-community/gpt2` for `gpt2`.
pub fn repo_id(model: &str) -> &str {
    HUB_ALIASES.iter().find(|(short, _)| *short == model).map_or(model, |(_, full)| full)
}

/// The models of the cache that have a configuration: how a user types each, and its folder.
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

/// A folder with a config.json comes first, then the cache; a path that is neither but exists is returned for its
/// reader to say what is wrong with it.
fn locate_in(model: &str, cache: Option<&Path>) -> Result<PathBuf> {
    let path = Path::new(model);
    if path.join("config.json").is_file() {
        return Ok(path.to_path_buf());
    }
    let named = is_repo_id(model);
    if let Some(cache) = cache.filter(|_| named) {
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
        _ if !named => (
            "no such folder".to_string(),
            format!(
                "expected a folder with config.json and model.safetensors, a name such as \
                 openai-community/gpt2, or {}",
                embedded::NAME
            ),
        ),
        Some(cache) => (
            format!(
                "no such folder, and not in the Hugging Face cache {}",
                cache.display()
            ),
            format!("`hornbook pull {model}` puts it there"),
        ),
        None => (
            "no such folder, and no Hugging Face cache, since HF_HUB_CACHE, HF_HOME and the home folder are unset"
                .to_string(),
            format!("set HF_HUB_CACHE, then `hornbook pull {model}`"),
        ),
    };
    let cached = cache.map(cached_models_in).unwrap_or_default();
    let names = cached.iter().map(|(name, _)| name.as_str());
    let known = HUB_ALIASES.iter().flat_map(|(short, full)| [*short, *full]);
    let exists = HUB_ALIASES.iter().any(|(short, full)| [*short, *full].contains(&model));
    let meant = Error::closest_match(model, names.chain(known).chain([embedded::NAME])).filter(|_| !exists);
    let hint = match meant {
        Some(meant) if named => format!("did you mean '{meant}'? if not, {hint}"),
        Some(meant) => format!("{hint}; did you mean '{meant}'?"),
        None => hint,
    };
    Err(Error::ModelNotFound { name: model.escape_debug().to_string(), searched, hint })
}

/// Whether `model` can be a name on the hub, `name` or `owner/name`, rather than a path.
pub fn is_repo_id(model: &str) -> bool {
    let mut parts = model.split('/');
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && (part.chars()).all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    parts.clone().count() <= 2 && parts.all(plain)
}

/// The names `model` may be cached under: as typed, then as the hub calls it now or called it once.
fn repo_ids(model: &str) -> Vec<&str> {
    let mut names = vec![model];
    for (short, full) in HUB_ALIASES {
        if model == short {
            names.push(full);
        } else if model == full {
            names.push(short);
        }
    }
    names
}

/// Where `huggingface_hub` keeps what it downloads
/// (<https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables>).
fn hub_cache_dir_by(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let cache = variable("HF_HUB_CACHE").filter(|value| !value.is_empty()).map(PathBuf::from);
    cache.or_else(|| Some(hf_home_dir_by(variable)?.join("hub")))
}

fn hf_home_dir_by(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let folder = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("HF_HOME").or_else(|| {
        folder("XDG_CACHE_HOME")
            .or_else(|| Some(folder("HOME").or_else(std::env::home_dir)?.join(".cache")))
            .map(|cache| cache.join("huggingface"))
    })
}

/// The snapshot of a cached repository that `refs/main` names, else the newest one that has a config.json.
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
    let age = |folder: &PathBuf| {
        let modified = std::fs::metadata(folder).and_then(|metadata| metadata.modified());
        (modified.unwrap_or(SystemTime::UNIX_EPOCH), folder.clone())
    };
    std::fs::read_dir(snapshots)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(complete)
        .max_by_key(age)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    fn cached(cache: &Path, repository: &str, commit: &str) -> PathBuf {
        let folder = cache.join(repository).join("snapshots").join(commit);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config.json"), "{}").unwrap();
        folder
    }

    #[test]
    fn the_cache_is_where_the_environment_says() {
        let with = |set: &[(&str, &str)]| {
            let set: Vec<_> = set.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            hub_cache_dir_by(move |name| Some(set.iter().find(|(k, _)| k == name)?.1.clone().into())).unwrap()
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
    fn a_name_is_found_by_its_ref_then_by_its_newest_complete_snapshot() {
        let cache = tempfile::tempdir().unwrap();
        let cache = cache.path();
        let repository = "models--openai-community--gpt2";
        let old = cached(cache, repository, "0ld");
        let new = cached(cache, repository, "new");
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
    fn old_names_and_new_names_find_each_other() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cached(cache.path(), "models--distilgpt2", "c");
        for model in ["distilgpt2", "distilbert/distilgpt2"] {
            assert_eq!(locate_in(model, Some(cache.path())).unwrap(), folder);
        }
    }

    #[test]
    fn a_name_found_nowhere_says_where_it_was_looked_for_and_what_to_do() {
        let cache = tempfile::tempdir().unwrap();
        let says = |model: &str, cache: Option<&Path>| {
            let line = locate_in(model, cache).unwrap_err().to_string();
            assert!(!line.contains('\n'), "{line}");
            line
        };
        let line = says("gpt2-xl", Some(cache.path()));
        assert!(line.contains(cache.path().to_str().unwrap()), "{line}");
        assert!(line.ends_with("`hornbook pull gpt2-xl` puts it there"), "{line}");
        assert!(says("me/mine", Some(cache.path())).ends_with("`hornbook pull me/mine` puts it there"));
        cached(cache.path(), "models--me--my-own-model", "c");
        for (slip, meant) in
            [("gtp2-xl", "gpt2-xl"), ("fabel", "fable"), ("me/my-own-modle", "me/my-own-model")]
        {
            let line = says(slip, Some(cache.path()));
            let expected = format!("; did you mean '{meant}'? if not, `hornbook pull {slip}` puts it there");
            assert!(line.ends_with(&expected), "{line}");
        }
        assert!(says("gpt2", None).contains("HF_HUB_CACHE"));
        for path in ["./gpt2", "/no/such", "a/b/c", "gpt2/", "", "two words", "x\ny", "../no-such", "a\\b"] {
            let line = says(path, Some(cache.path()));
            assert!(!line.contains("Hugging Face cache"), "{line}");
        }
    }

    #[test]
    fn a_path_is_never_looked_up_in_the_cache() {
        let cache = tempfile::tempdir().unwrap();
        cached(cache.path(), "models--.--gpt2", "c");
        cached(cache.path(), "models--gpt2", "c");
        for path in ["./gpt2", "gpt2/", "../gpt2"] {
            assert!(locate_in(path, Some(cache.path())).is_err(), "{path}");
        }
    }
}
