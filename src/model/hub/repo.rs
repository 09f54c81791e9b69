//! The name of a model on the hub: `owner/name`, with a revision.
//!
//! Whatever passes here is safe as a path component and as part of a URL. It does not know whether the model exists.

use std::{fmt, str::FromStr};

/// The branch the hub itself takes when none is named.
const DEFAULT_REVISION: &str = "main";

/// Longest owner or model name, in bytes.
const MAX_PART: usize = 96;

/// Longest revision, in bytes.
const MAX_REVISION: usize = 200;

/// A model repository at one revision: a branch, a tag, `refs/pr/N` or a commit hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoId {
    owner: String,
    name: String,
    revision: String,
}

/// The text is not the name of a model repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected owner/name or owner/name@revision, got `{given}`: {why}")]
pub struct RepoIdError {
    given: String,
    why: &'static str,
}

impl RepoId {
    /// The same repository at another revision.
    ///
    /// # Errors
    /// When `revision` cannot be the name of a git revision.
    pub fn with_revision(self, revision: &str) -> Result<Self, RepoIdError> {
        match revision_fault(revision) {
            Some(why) => Err(RepoIdError { given: format!("{}/{}@{revision}", self.owner, self.name), why }),
            None => Ok(Self { revision: revision.to_owned(), ..self }),
        }
    }

    /// `owner/name`, without the revision.
    pub fn path(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// The branch, tag or commit hash.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// Whether the revision is a full commit hash, whose content can never change.
    pub fn is_pinned(&self) -> bool {
        is_commit_hash(&self.revision)
    }

    pub(super) fn to_hf_hub(&self) -> hf_hub::Repo {
        hf_hub::Repo::with_revision(self.path(), hf_hub::RepoType::Model, self.revision.clone())
    }
}

impl FromStr for RepoId {
    type Err = RepoIdError;

    fn from_str(given: &str) -> Result<Self, RepoIdError> {
        let fail = |why| RepoIdError { given: given.to_owned(), why };
        if given.contains("://") {
            return Err(fail("give the name alone, without the address of the hub"));
        }
        let (path, revision) = given.split_once('@').unwrap_or((given, DEFAULT_REVISION));
        let (owner, name) = path.split_once('/').ok_or_else(|| fail("the owner is missing"))?;
        for part in [owner, name] {
            if let Some(why) = part_fault(part) {
                return Err(fail(why));
            }
        }
        if let Some(why) = revision_fault(revision) {
            return Err(fail(why));
        }
        Ok(Self { owner: owner.to_owned(), name: name.to_owned(), revision: revision.to_owned() })
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)?;
        if self.revision == DEFAULT_REVISION { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

/// Whether `text` is a full git commit hash.
pub(super) fn is_commit_hash(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// What keeps `part` from being an owner or a model name: the hub's own rules.
fn part_fault(part: &str) -> Option<&'static str> {
    if part.is_empty() {
        return Some("the owner or the name is empty");
    }
    if part.len() > MAX_PART {
        return Some("the owner or the name is longer than 96 characters");
    }
    if part.contains('/') {
        return Some("there is more than one slash in it");
    }
    if !part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Some("only letters, digits, `-`, `_` and `.` may stand in a name");
    }
    // `--` separates owner and name in the cache's folder names.
    if part.starts_with(['.', '-']) || part.ends_with(['.', '-']) || part.contains("--") || part.contains("..") {
        return Some("a name may not start or end with `-` or `.`, nor hold `--` or `..`");
    }
    None
}

/// What keeps `revision` from being a git revision that is also a safe relative path.
fn revision_fault(revision: &str) -> Option<&'static str> {
    if revision.is_empty() {
        return Some("the revision is empty");
    }
    if revision.len() > MAX_REVISION {
        return Some("the revision is longer than 200 characters");
    }
    if revision.bytes().any(|b| b <= b' ' || b == 0x7f || b"\\~^:?*[@".contains(&b)) {
        return Some("the revision holds a character that git does not allow");
    }
    if revision.split('/').any(|part| part.is_empty() || part.starts_with('.') || part.ends_with('.'))
        || revision.contains("..")
    {
        return Some("the revision is not a name that git allows");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_revisions_are_read() {
        let plain: RepoId = "MoritzLaurer/deberta-v3-base-zeroshot-v2.0".parse().unwrap();
        assert_eq!(plain.path(), "MoritzLaurer/deberta-v3-base-zeroshot-v2.0");
        assert_eq!(plain.revision(), "main");
        assert_eq!(plain.to_string(), "MoritzLaurer/deberta-v3-base-zeroshot-v2.0");

        let pull: RepoId = "a/b@refs/pr/3".parse().unwrap();
        assert_eq!(pull.revision(), "refs/pr/3");
        assert_eq!(pull.to_string(), "a/b@refs/pr/3");
        assert!(!pull.is_pinned());

        let pinned = plain.with_revision("0123456789abcdef0123456789abcdef01234567").unwrap();
        assert!(pinned.is_pinned());
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_reason() {
        for (given, why) in [
            ("", "owner is missing"),
            ("bert", "owner is missing"),
            ("a/", "is empty"),
            ("/b", "is empty"),
            ("a/b/c", "more than one slash"),
            ("../b", "may not start"),
            ("a/..", "may not start"),
            ("a/b--c", "may not start"),
            ("a/b c", "only letters"),
            ("a/b@", "revision is empty"),
            ("a/b@../../etc", "not a name that git allows"),
            ("a/b@x//y", "not a name that git allows"),
            ("a/b@/etc", "not a name that git allows"),
            ("a/b@x\ny", "character that git does not allow"),
            ("https://example.org/a/b", "without the address"),
        ] {
            let error = given.parse::<RepoId>().unwrap_err().to_string();
            assert!(error.contains(why), "{given:?}: {error}");
            assert!(error.starts_with("expected owner/name or owner/name@revision, got"), "{error}");
        }
    }
}
