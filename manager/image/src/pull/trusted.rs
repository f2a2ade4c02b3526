//! The trust policy's part in a pull: between the resolution of the name and the first layer.

use std::sync::Arc;

use super::local::Known;
use super::plan::Plan;
use super::{Pull, Pulls};
use crate::digest::Digest;
use crate::reference::Reference;
use crate::registry::Sources;
use crate::trust::{Origin, Verdict};
use crate::{Error, Kept, PullOptions, blocking};

impl Pulls {
    /// Judge an image by its manifests and signatures alone.
    pub(crate) async fn verify(
        self: &Arc<Self>,
        reference: Reference,
        options: PullOptions,
    ) -> Result<Verdict, Error> {
        let pull = Pull::new(self, reference, options);
        let registry = pull.connect().await?;
        // What is fetched to find that out goes with the plan.
        let plan = pull.plan(Some(&registry), None).await?;
        let digests = digests(&plan);
        let verdict = self.gate.admit(&registry, &pull.reference, digests?).await;
        blocking(move || {
            drop(plan);
            Ok(())
        })
        .await?;
        verdict.map(|(verdict, _)| verdict)
    }
}

/// What the name points to, and the image's own manifest.
fn digests(plan: &Plan) -> Result<Vec<Digest>, Error> {
    let target = parse(&plan.target.target_digest)?;
    Ok(vec![target, parse(&plan.row.manifest_digest)?])
}

fn parse(digest: &str) -> Result<Digest, Error> {
    Digest::parse(digest).map_err(|rule| Error::Document {
        what: "manifest",
        digest: digest.to_owned(),
        rule,
    })
}

impl Pull {
    pub(super) async fn admit(&self, registry: &Sources, plan: &Plan) -> Result<Origin, Error> {
        let gate = &self.shared.gate;
        let (_, origin) = gate.admit(registry, &self.reference, digests(plan)?).await?;
        Ok(origin)
    }

    /// Whether the policy accepts an image that is here, by the signatures that are kept with it.
    pub(super) async fn is_still_accepted(&self, id: String) -> Result<bool, Error> {
        let (store, gate) = (Arc::clone(&self.shared.store), self.shared.gate.clone());
        let reference = self.reference.clone();
        blocking(move || gate.is_still_accepted(&store, &id, &reference)).await
    }

    /// Judge an image that is here by the signatures that its registry has now, and keep those. `false`: there is none,
    /// or it has been removed since it was looked for.
    pub(super) async fn is_accepted_again(&self, registry: &Sources, known: &Known) -> Result<bool, Error> {
        let Some(id) = known.image.clone() else {
            return Ok(false);
        };
        let here = |id: String| {
            let store = Arc::clone(&self.shared.store);
            blocking(move || Kept::find(&store.database(), &id))
        };
        let Some(kept) = here(id.clone()).await? else {
            return Ok(false);
        };
        let digests = vec![known.target.clone(), parse(kept.manifest_digest())?];
        let admission = self.shared.gate.admit(registry, &self.reference, digests);
        let (_, origin) = self.or_cancelled(admission).await?;
        // Asking takes as long as the registry takes.
        if here(id.clone()).await?.is_none() {
            return Ok(false);
        }
        let store = Arc::clone(&self.shared.store);
        blocking(move || {
            let held = origin.hold_documents(&store)?;
            store.add_blobs(&id, &held, |transaction| origin.insert(transaction, &id))?;
            failpoint::reach("trust.recorded");
            Ok(true)
        })
        .await
    }
}
