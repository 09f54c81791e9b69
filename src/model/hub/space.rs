//! Free disk space, and sizes in words. It does not know what the space is for.

use std::path::Path;

/// Bytes that an unprivileged user may still write at `dir`; `None` when the file system does not say.
pub(super) fn free_bytes(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

/// `bytes` in decimal units, as download pages print them.
pub fn human(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1000, "kB")];
    match UNITS.into_iter().find(|&(size, _)| bytes >= size) {
        #[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
        Some((size, unit)) => format!("{:.1} {unit}", bytes as f64 / size as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        assert_eq!(human(999), "999 bytes");
        assert_eq!(human(1000), "1.0 kB");
        assert_eq!(human(738_563_688), "738.6 MB");
        assert_eq!(human(1_740_000_000), "1.7 GB");
    }

    #[test]
    fn a_real_folder_has_some_answer() {
        assert!(free_bytes(&std::env::temp_dir()).is_some());
        assert_eq!(free_bytes(Path::new("/no/such/folder")), None);
    }
}
