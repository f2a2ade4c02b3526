//! A container whose files somebody is at: it neither starts nor goes meanwhile.

use tokio::sync::oneshot;

use super::{Command, Handle, Owner};
use crate::Error;

/// The owner of a container waits until this is dropped.
pub(crate) struct Loan(#[expect(dead_code, reason = "its end is what counts")] oneshot::Sender<()>);

impl Handle {
    /// Keep the container as it is, if it does not run. None: it runs.
    pub(crate) async fn borrow(&self) -> Result<Option<Loan>, Error> {
        self.ask(Command::Lend).await
    }
}

impl Owner {
    pub(super) async fn lend(&mut self, to: oneshot::Sender<Option<Loan>>) {
        if self.container.is_running() {
            // Who asked may have gone.
            let _ = to.send(None);
            return;
        }
        let (loan, given_back) = oneshot::channel();
        if to.send(Some(Loan(loan))).is_ok() {
            // It is dropped, and nothing is ever sent.
            let _ = given_back.await;
        }
    }
}
