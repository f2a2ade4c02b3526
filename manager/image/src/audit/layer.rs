//! One layer of a check: unpacked once more beside its place, completed from the layers below, and compared.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use super::trees::{Stop, compare};
use super::{Audit, AuditEvent, Checked, Fault, Finding, InPlace, not_checked};
use crate::digest::Digest;
use crate::layer::complete;
use crate::local::{LocalLayer, unpack_aside};
use crate::manifest::Layer;
use crate::store::{Held, View};
use crate::unpack::{Form, Implied, undated};
use crate::{Error, Kind};

/// More of one layer are not told one by one.
const DIFFERING_MAX: usize = 1000;
/// So often is told how far it is.
const PROGRESS_FILES: u64 = 256;

impl Audit<'_> {
    /// `packed` is the layer by the manifest, if that can be read; `below` are the layers below, base first.
    pub(super) fn layer(
        &mut self,
        view: &View,
        image: &str,
        packed: Option<&Layer>,
        diff_id: &Digest,
        (row, in_place): InPlace<'_>,
        below: &[(Digest, Arc<Held>)],
    ) -> Result<Checked, Error> {
        let not = |reason: &str| Ok(not_checked(image, diff_id, reason));
        let Some(packed) = packed else {
            return not("the image's manifest cannot be read");
        };
        let digest = &packed.descriptor.digest;
        let text = digest.to_string();
        let blob = match view.contents.iter().find(|(row, _)| row.digest == text) {
            Some((_, Some(blob))) if self.is_whole(digest) => Arc::clone(blob),
            Some(_) => return not(&format!("its content {text} is broken")),
            None => {
                return not(&format!(
                    "its content {text} is not kept: the layer was here, unpacked from another image, when this one was \
                     pulled"
                ));
            }
        };
        let refused = |rule: String| Finding::Layer {
            image: image.to_owned(),
            layer: diff_id.to_string(),
            fault: Fault::Refused(rule),
        };
        let local = LocalLayer {
            layer: packed.clone(),
            diff_id: diff_id.clone(),
            blob,
        };
        let folders: Vec<Arc<Held>> = below.iter().map(|(_, held)| Arc::clone(held)).collect();
        // Whatever the store keeps it as: both forms show the same.
        let made = unpack_aside(self.store, &local, Form::Folder, None).and_then(|(folder, unpacked)| {
            let implied = unpacked.implied().cloned().unwrap_or_default();
            let bytes = complete(folder.path(), unpacked, &folders, packed, diff_id)?;
            Ok((folder, implied, bytes))
        });
        let (wanted, implied, bytes) = match made {
            // It may be what it takes from there that cannot be had.
            Err(error) if error.kind() == Kind::Invalid && self.is_damaged(below) => {
                return not(&format!("a layer below it differs: {error}"));
            }
            Err(error) if error.kind() == Kind::Invalid => {
                self.find(refused(error.to_string()))?;
                return not("its content cannot be unpacked");
            }
            made => made?,
        };
        if row.unpacked_bytes.is_some_and(|recorded| recorded != bytes) && !self.is_damaged(below) {
            let rule = format!("the database says that its files have another size than their {bytes} bytes");
            self.find(refused(rule))?;
        }
        let found = match in_place.open_layer() {
            Ok(found) => found,
            Err(error) => {
                self.find(refused(error.to_string()))?;
                return not("it cannot be opened");
            }
        };
        let below_fds = folders.iter().rev().map(|held| held.open_layer());
        let below_fds: Vec<OwnedFd> = below_fds.collect::<Result<_, _>>()?;
        let undated = undated(wanted.path(), &implied, &below_fds)
            .map_err(|e| Error::io("look at the folders of", wanted.path(), e))?;
        let differing = self.compare((image, diff_id), wanted.path(), found, &undated, &implied, below)?;
        self.counts.layers += 1;
        Ok(Checked::Compared(differing))
    }

    /// Gives the paths where the layer in its place differs.
    fn compare(
        &mut self,
        (image, diff_id): (&str, &Digest),
        wanted: &Path,
        found: OwnedFd,
        undated: &HashSet<Vec<u8>>,
        implied: &Implied,
        below: &[(Digest, Arc<Held>)],
    ) -> Result<HashSet<Vec<u8>>, Error> {
        let mut differing = HashSet::new();
        let compared = compare(wanted, found, undated, &mut |compared| {
            self.counts.files += 1;
            self.counts.bytes += compared.bytes;
            if self.counts.files.is_multiple_of(PROGRESS_FILES) {
                self.say(AuditEvent::Progress(self.counts))?;
            }
            if compared.differences.is_empty() || self.is_from_below(compared.path, implied, below) {
                return Ok(());
            }
            if differing.len() == DIFFERING_MAX {
                return Err(Ended::Full);
            }
            differing.insert(compared.path.to_vec());
            self.find(Finding::File {
                image: image.to_owned(),
                layer: diff_id.to_string(),
                path: compared.path.to_vec(),
                differences: compared.differences,
            })?;
            Ok(())
        });
        match compared {
            Ok(()) => {}
            Err(Stop::Told(Ended::Full)) => self.find(Finding::Layer {
                image: image.to_owned(),
                layer: diff_id.to_string(),
                fault: Fault::Refused(format!(
                    "more than {DIFFERING_MAX} of its files differ: the others were not compared"
                )),
            })?,
            Err(Stop::Told(Ended::By(error))) => return Err(error),
            Err(Stop::Wanted(path, source)) => {
                return Err(Error::Unpack {
                    layer: diff_id.to_string(),
                    entry: String::from_utf8_lossy(&path).into_owned(),
                    action: "read back",
                    source,
                });
            }
        }
        Ok(differing)
    }

    /// Whether a layer has at this path what it took from one below that differs there itself, which was told.
    fn is_from_below(&self, path: &[u8], implied: &Implied, below: &[(Digest, Arc<Held>)]) -> bool {
        let Some(source) = implied.source_of(path) else {
            return false;
        };
        self.differing(below).any(|differing| differing.contains(source))
    }

    fn is_damaged(&self, below: &[(Digest, Arc<Held>)]) -> bool {
        self.differing(below).any(|differing| !differing.is_empty())
    }

    /// The paths where each of these layers differs.
    fn differing(&self, layers: &[(Digest, Arc<Held>)]) -> impl Iterator<Item = &HashSet<Vec<u8>>> {
        let checked = layers
            .iter()
            .filter_map(|(chain_id, _)| self.layers.get(chain_id));
        checked.filter_map(|checked| match checked {
            Checked::Compared(differing) => Some(differing),
            Checked::Not { .. } => None,
        })
    }
}

/// Why a comparison ended early.
enum Ended {
    /// Enough was told.
    Full,
    By(Error),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Ended {
        Ended::By(error)
    }
}
