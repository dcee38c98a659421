//! The part of a run that says why the server does not answer.

use super::Run;
use crate::diagnosis::{self, BUDGET, Diagnosis, Question, Seen};
use crate::health::Trouble;
use crate::journal::BANNER;
use crate::process::find::Process;

impl Run<'_> {
    /// Looks at the server and writes down what there is to see, within its budget.
    pub(super) async fn diagnose(&mut self, server: &[Process]) {
        let question = Question {
            server: server.to_vec(),
            port: self
                .settings
                .url
                .port_or_known_default()
                .unwrap_or_default(),
            addresses: self.checker.addresses(),
            tls: self.settings.url.scheme() == "https",
            seen: self.seen(),
            since_healthy: self.last_healthy.ago(),
        };
        let looking = tokio::task::spawn_blocking(move || diagnosis::look(&question));
        let Diagnosis { causes, record } = match tokio::time::timeout(BUDGET, looking).await {
            Ok(Ok(diagnosis)) => diagnosis,
            _ => Diagnosis {
                causes: vec![format!(
                    "not known: /proc did not answer within {} ms",
                    BUDGET.as_millis()
                )],
                record: Vec::new(),
            },
        };
        for line in [BANNER, "DIAGNOSIS", BANNER] {
            self.journal.info(line);
        }
        for cause in &causes {
            self.journal.warning(&format!("Cause: {cause}"));
        }
        for line in &record {
            self.journal.info(line);
        }
        self.cause = causes.into_iter().next();
    }

    fn seen(&self) -> Seen {
        match &self.trouble {
            None => Seen::Healthy,
            Some(Trouble::Status(status)) => Seen::Status(*status),
            Some(Trouble::Certificate(what)) => Seen::Certificate(what.clone()),
            Some(_) => Seen::Silent,
        }
    }

    /// How long the server was away, and why.
    pub(super) fn sum_up(&self) {
        let away = self.away_since.and_then(|since| since.elapsed().ok());
        if let (Some(away), Some(cause)) = (away, &self.cause) {
            self.journal
                .info(&format!("Service was away {} s: {cause}", away.as_secs()));
        }
    }
}
