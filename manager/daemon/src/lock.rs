//! Only one manager works on a root, and only one on a state folder, at a time.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

const RETRY: Duration = Duration::from_millis(20);

/// Held as long as this lives; the kernel lets go of it when the process ends, however it ends.
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its drop")] Flock<File>);

/// Take the lock called `name` in `folder`, or say who has it. One that is ending gets a little time: a program that it was just
/// starting when it died holds the lock until that has begun.
pub(crate) fn take(folder: &Path, name: &str, patience: Duration) -> anyhow::Result<Lock> {
    let path = folder.join(name);
    let mut options = std::fs::OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    let mut file = options
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    let deadline = Instant::now() + patience;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                // The number is for people only, and the disk may be full.
                let _ = lock
                    .set_len(0)
                    .and_then(|()| lock.rewind())
                    .and_then(|()| writeln!(lock, "{}", std::process::id()));
                return Ok(Lock(lock));
            }
            Err((held, Errno::EWOULDBLOCK)) if Instant::now() < deadline => {
                file = held;
                std::thread::sleep(RETRY);
            }
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                bail!(
                    "another manager (process {}) works on {}",
                    holder.trim(),
                    folder.display()
                )
            }
            Err((_, error)) => return Err(error).with_context(|| format!("lock {}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_manager_is_told_who_is_there() {
        let folder = std::env::temp_dir().join(format!("berth-lock-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let held = take(&folder, "lock", Duration::ZERO).unwrap();
        let refused = take(&folder, "lock", Duration::ZERO).err().unwrap().to_string();
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        drop(held);
        take(&folder, "lock", Duration::ZERO).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
